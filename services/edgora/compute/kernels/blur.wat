;; Box blur: every sample becomes the mean of the (2r+1)^2 samples around it in its channel, rounded half up.
;;
;; Arguments: width, height, channels, radius (u32 each); channels 1 or 3; radius 1 to 64 and below both sides. Data:
;; the samples, row by row. Result: the header without the radius, then the samples. Beyond the border the nearest
;; sample counts. Work per sample does not depend on the radius: column sums slide down, a row sum slides right.
(module
  (memory (export "memory") 1)
  (global $brk (mut i32) (i32.const 16))
  ;; include alloc.wat
  ;; include raster.wat

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $w i32) (local $h i32) (local $c i32) (local $r i32) (local $octets i32) (local $stride i32)
    (local $from i32) (local $cols i32) (local $out i32) (local $to i32)
    (local $i i32) (local $k i32) (local $x i32) (local $y i32) (local $ch i32)
    (local $sum i32) (local $area i32) (local $half i32) (local $add i32) (local $sub i32) (local $col i32)
    (local.set $octets (call $raster (local.get $in) (local.get $len) (i32.const 16)))
    (local.set $w (i32.load (local.get $in)))
    (local.set $h (i32.load offset=4 (local.get $in)))
    (local.set $c (i32.load offset=8 (local.get $in)))
    (local.set $r (i32.load offset=12 (local.get $in)))
    (if (i32.or (i32.eqz (local.get $r)) (i32.gt_u (local.get $r) (i32.const 64))) (then (unreachable)))
    (if (i32.or (i32.ge_u (local.get $r) (local.get $w)) (i32.ge_u (local.get $r) (local.get $h)))
      (then (unreachable)))
    (local.set $stride (i32.mul (local.get $w) (local.get $c)))
    (local.set $from (i32.add (local.get $in) (i32.const 16)))
    (local.set $cols (call $room (i32.shl (local.get $stride) (i32.const 2))))
    (local.set $out (call $canvas (local.get $w) (local.get $h) (local.get $c) (local.get $octets)))
    (local.set $area (i32.add (i32.shl (local.get $r) (i32.const 1)) (i32.const 1)))
    (local.set $area (i32.mul (local.get $area) (local.get $area)))
    (local.set $half (i32.shr_u (local.get $area) (i32.const 1)))

    ;; column sums of row 0: its own row r + 1 times, then the r rows below
    (loop $column
      (local.set $sum
        (i32.mul
          (i32.load8_u (i32.add (local.get $from) (local.get $i)))
          (i32.add (local.get $r) (i32.const 1))))
      (local.set $k (i32.const 1))
      (local.set $add (i32.add (i32.add (local.get $from) (local.get $i)) (local.get $stride)))
      (loop $below
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $add))))
        (local.set $add (i32.add (local.get $add) (local.get $stride)))
        (local.set $k (i32.add (local.get $k) (i32.const 1)))
        (br_if $below (i32.le_u (local.get $k) (local.get $r))))
      (i32.store (i32.add (local.get $cols) (i32.shl (local.get $i) (i32.const 2))) (local.get $sum))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $column (i32.lt_u (local.get $i) (local.get $stride))))

    (loop $row
      (local.set $ch (i32.const 0))
      (loop $channel
        ;; the row sum at x = 0, in the same way
        (local.set $col (i32.add (local.get $cols) (i32.shl (local.get $ch) (i32.const 2))))
        (local.set $sum (i32.mul (i32.load (local.get $col)) (i32.add (local.get $r) (i32.const 1))))
        (local.set $k (i32.const 1))
        (loop $right
          (local.set $sum
            (i32.add
              (local.get $sum)
              (i32.load
                (i32.add
                  (local.get $col)
                  (i32.shl (i32.mul (local.get $k) (local.get $c)) (i32.const 2))))))
          (local.set $k (i32.add (local.get $k) (i32.const 1)))
          (br_if $right (i32.le_u (local.get $k) (local.get $r))))
        (local.set $to
          (i32.add
            (i32.add (local.get $out) (i32.const 12))
            (i32.add (i32.mul (local.get $y) (local.get $stride)) (local.get $ch))))
        (local.set $x (i32.const 0))
        (loop $pixel
          (i32.store8 (local.get $to)
            (i32.div_u (i32.add (local.get $sum) (local.get $half)) (local.get $area)))
          (local.set $add
            (call $at_most
              (i32.add (i32.add (local.get $x) (local.get $r)) (i32.const 1))
              (i32.sub (local.get $w) (i32.const 1))))
          (local.set $sub (i32.sub (local.get $x) (local.get $r)))
          (local.set $sub (select (local.get $sub) (i32.const 0) (i32.gt_s (local.get $sub) (i32.const 0))))
          (local.set $sum
            (i32.sub
              (i32.add
                (local.get $sum)
                (i32.load
                  (i32.add (local.get $col) (i32.shl (i32.mul (local.get $add) (local.get $c)) (i32.const 2)))))
              (i32.load
                (i32.add (local.get $col) (i32.shl (i32.mul (local.get $sub) (local.get $c)) (i32.const 2))))))
          (local.set $to (i32.add (local.get $to) (local.get $c)))
          (local.set $x (i32.add (local.get $x) (i32.const 1)))
          (br_if $pixel (i32.lt_u (local.get $x) (local.get $w))))
        (local.set $ch (i32.add (local.get $ch) (i32.const 1)))
        (br_if $channel (i32.lt_u (local.get $ch) (local.get $c))))

      ;; slide the column sums down by one row
      (local.set $add
        (i32.add
          (local.get $from)
          (i32.mul
            (call $at_most
              (i32.add (i32.add (local.get $y) (local.get $r)) (i32.const 1))
              (i32.sub (local.get $h) (i32.const 1)))
            (local.get $stride))))
      (local.set $sub (i32.sub (local.get $y) (local.get $r)))
      (local.set $sub (select (local.get $sub) (i32.const 0) (i32.gt_s (local.get $sub) (i32.const 0))))
      (local.set $sub (i32.add (local.get $from) (i32.mul (local.get $sub) (local.get $stride))))
      (local.set $i (i32.const 0))
      (local.set $col (local.get $cols))
      (loop $slide
        (i32.store (local.get $col)
          (i32.sub
            (i32.add
              (i32.load (local.get $col))
              (i32.load8_u (i32.add (local.get $add) (local.get $i))))
            (i32.load8_u (i32.add (local.get $sub) (local.get $i)))))
        (local.set $col (i32.add (local.get $col) (i32.const 4)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $slide (i32.lt_u (local.get $i) (local.get $stride))))
      (local.set $y (i32.add (local.get $y) (i32.const 1)))
      (br_if $row (i32.lt_u (local.get $y) (local.get $h))))
    (call $result (local.get $out) (i32.add (local.get $octets) (i32.const 12)))))
