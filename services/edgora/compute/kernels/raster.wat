  ;; Included by the image filters: checks a raster and returns the octets of its samples.
  ;; At $in: width u32, height u32, channels u32; the samples begin at $in + $head.
  (func $raster (param $in i32) (param $len i32) (param $head i32) (result i32)
    (local $w i32) (local $h i32) (local $c i32)
    (if (i32.lt_u (local.get $len) (local.get $head)) (then (unreachable)))
    (local.set $w (i32.load (local.get $in)))
    (local.set $h (i32.load offset=4 (local.get $in)))
    (local.set $c (i32.load offset=8 (local.get $in)))
    (if (i32.or (i32.eqz (local.get $w)) (i32.gt_u (local.get $w) (i32.const 32768))) (then (unreachable)))
    (if (i32.or (i32.eqz (local.get $h)) (i32.gt_u (local.get $h) (i32.const 32768))) (then (unreachable)))
    (if (i32.and (i32.ne (local.get $c) (i32.const 1)) (i32.ne (local.get $c) (i32.const 3))) (then (unreachable)))
    ;; at most 2^30 * 3: no wrap
    (local.set $c (i32.mul (i32.mul (local.get $w) (local.get $h)) (local.get $c)))
    (if (i32.ne (i32.add (local.get $c) (local.get $head)) (local.get $len)) (then (unreachable)))
    (local.get $c))

  ;; Room for an output raster: header written, samples to follow at the result + 12.
  (func $canvas (param $w i32) (param $h i32) (param $c i32) (param $octets i32) (result i32)
    (local $out i32)
    (local.set $out (call $room (i32.add (local.get $octets) (i32.const 12))))
    (i32.store (local.get $out) (local.get $w))
    (i32.store offset=4 (local.get $out) (local.get $h))
    (i32.store offset=8 (local.get $out) (local.get $c))
    (local.get $out))

  (func $at_most (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.lt_s (local.get $a) (local.get $b))))
