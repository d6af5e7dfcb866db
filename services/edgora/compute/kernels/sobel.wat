;; Edges of an image: gradient magnitude by the Sobel operator.
;;
;; Arguments: width, height, channels (u32 each); channels 1 (gray) or 3 (RGB). Data: the samples, row by row.
;; Result: the same header with one channel, then floor(sqrt(gx^2 + gy^2)) of each pixel's luma, at most 255.
;; Luma is (77 R + 150 G + 29 B) >> 8. Beyond the border the nearest pixel counts.
(module
  (memory (export "memory") 1)
  (global $brk (mut i32) (i32.const 16))
  ;; include alloc.wat
  ;; include raster.wat

  ;; Luma plane of RGB samples.
  (func $luma (param $from i32) (param $count i32) (result i32)
    (local $plane i32) (local $to i32) (local $end i32)
    (local.set $plane (call $room (local.get $count)))
    (local.set $to (local.get $plane))
    (local.set $end (i32.add (local.get $plane) (local.get $count)))
    (loop $pixel
      (i32.store8 (local.get $to)
        (i32.shr_u
          (i32.add
            (i32.add
              (i32.mul (i32.load8_u (local.get $from)) (i32.const 77))
              (i32.mul (i32.load8_u offset=1 (local.get $from)) (i32.const 150)))
            (i32.mul (i32.load8_u offset=2 (local.get $from)) (i32.const 29)))
          (i32.const 8)))
      (local.set $from (i32.add (local.get $from) (i32.const 3)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (br_if $pixel (i32.lt_u (local.get $to) (local.get $end))))
    (local.get $plane))

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $w i32) (local $h i32) (local $plane i32) (local $count i32) (local $out i32) (local $to i32)
    (local $x i32) (local $y i32) (local $up i32) (local $mid i32) (local $down i32) (local $next i32)
    ;; vertical sums s = up + 2 mid + down and differences d = down - up of the left, centre and right column
    (local $s0 i32) (local $s1 i32) (local $s2 i32) (local $d0 i32) (local $d1 i32) (local $d2 i32)
    (local $gx i32) (local $gy i32) (local $last i32)
    (local.set $count (call $raster (local.get $in) (local.get $len) (i32.const 12)))
    (local.set $w (i32.load (local.get $in)))
    (local.set $h (i32.load offset=4 (local.get $in)))
    (local.set $plane (i32.add (local.get $in) (i32.const 12)))
    (if (i32.eq (i32.load offset=8 (local.get $in)) (i32.const 3))
      (then
        (local.set $count (i32.div_u (local.get $count) (i32.const 3)))
        (local.set $plane (call $luma (local.get $plane) (local.get $count)))))
    (local.set $out (call $canvas (local.get $w) (local.get $h) (i32.const 1) (local.get $count)))
    (local.set $to (i32.add (local.get $out) (i32.const 12)))
    (local.set $last (i32.sub (local.get $w) (i32.const 1)))
    (loop $row
      (local.set $mid (i32.add (local.get $plane) (i32.mul (local.get $y) (local.get $w))))
      (local.set $up (select (local.get $mid) (i32.sub (local.get $mid) (local.get $w)) (i32.eqz (local.get $y))))
      (local.set $y (i32.add (local.get $y) (i32.const 1)))
      (local.set $down
        (select (local.get $mid) (i32.add (local.get $mid) (local.get $w)) (i32.eq (local.get $y) (local.get $h))))
      (local.set $x (i32.const 0))
      (local.set $s1
        (i32.add
          (i32.add (i32.load8_u (local.get $up)) (i32.load8_u (local.get $down)))
          (i32.shl (i32.load8_u (local.get $mid)) (i32.const 1))))
      (local.set $d1 (i32.sub (i32.load8_u (local.get $down)) (i32.load8_u (local.get $up))))
      (local.set $s0 (local.get $s1))
      (local.set $d0 (local.get $d1))
      (loop $pixel
        (local.set $next (call $at_most (i32.add (local.get $x) (i32.const 1)) (local.get $last)))
        (local.set $s2
          (i32.add
            (i32.add
              (i32.load8_u (i32.add (local.get $up) (local.get $next)))
              (i32.load8_u (i32.add (local.get $down) (local.get $next))))
            (i32.shl (i32.load8_u (i32.add (local.get $mid) (local.get $next))) (i32.const 1))))
        (local.set $d2
          (i32.sub
            (i32.load8_u (i32.add (local.get $down) (local.get $next)))
            (i32.load8_u (i32.add (local.get $up) (local.get $next)))))
        (local.set $gx (i32.sub (local.get $s2) (local.get $s0)))
        (local.set $gy
          (i32.add (i32.add (local.get $d0) (local.get $d2)) (i32.shl (local.get $d1) (i32.const 1))))
        ;; an integer below 2^24: its root is exactly rounded, so the floor is exact
        (i32.store8 (local.get $to)
          (call $at_most
            (i32.const 255)
            (i32.trunc_f64_u
              (f64.sqrt
                (f64.convert_i32_u
                  (i32.add
                    (i32.mul (local.get $gx) (local.get $gx))
                    (i32.mul (local.get $gy) (local.get $gy))))))))
        (local.set $s0 (local.get $s1))
        (local.set $d0 (local.get $d1))
        (local.set $s1 (local.get $s2))
        (local.set $d1 (local.get $d2))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (local.set $x (i32.add (local.get $x) (i32.const 1)))
        (br_if $pixel (i32.lt_u (local.get $x) (local.get $w))))
      (br_if $row (i32.lt_u (local.get $y) (local.get $h))))
    (call $result (local.get $out) (i32.add (local.get $count) (i32.const 12)))))
