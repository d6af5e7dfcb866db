;; Product of two dense matrices of f64.
;;
;; Arguments: m, k, n (u32 each, 1 to 2048). Data: A (m x k), then B (k x n), row by row, IEEE 754 doubles, little
;; endian. Result: m, n (u32 each), then A B, row by row. Each element is summed in the order of k, without fused
;; multiply-add, so the result is the same to the bit on every server.
(module
  (memory (export "memory") 1)
  (global $brk (mut i32) (i32.const 16))
  ;; include alloc.wat

  (func $size (param $n i32)
    (if (i32.gt_u (i32.sub (local.get $n) (i32.const 1)) (i32.const 2047)) (then (unreachable))))

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $m i32) (local $k i32) (local $n i32) (local $a i32) (local $b i32) (local $row i32) (local $out i32)
    (local $i i32) (local $p i32) (local $octets i32) (local $from i32) (local $to i32) (local $end i32)
    (local $pairs_end i32) (local $x f64) (local $xx v128)
    (if (i32.lt_u (local.get $len) (i32.const 12)) (then (unreachable)))
    (local.set $m (i32.load (local.get $in)))
    (local.set $k (i32.load offset=4 (local.get $in)))
    (local.set $n (i32.load offset=8 (local.get $in)))
    (call $size (local.get $m))
    (call $size (local.get $k))
    (call $size (local.get $n))
    ;; at most 2 * 2^22 doubles, 2^26 octets: no wrap
    (if (i32.ne
          (local.get $len)
          (i32.add
            (i32.const 12)
            (i32.shl
              (i32.mul (local.get $k) (i32.add (local.get $m) (local.get $n)))
              (i32.const 3))))
      (then (unreachable)))
    (local.set $a (i32.add (local.get $in) (i32.const 12)))
    (local.set $octets (i32.shl (i32.mul (local.get $m) (local.get $n)) (i32.const 3)))
    (local.set $out (call $room (i32.add (local.get $octets) (i32.const 8))))
    (i32.store (local.get $out) (local.get $m))
    (i32.store offset=4 (local.get $out) (local.get $n))
    (local.set $row (i32.add (local.get $out) (i32.const 8)))
    (loop $rows
      (local.set $b
        (i32.add
          (i32.add (local.get $in) (i32.const 12))
          (i32.shl (i32.mul (local.get $m) (local.get $k)) (i32.const 3))))
      (local.set $end (i32.add (local.get $row) (i32.shl (local.get $n) (i32.const 3))))
      (local.set $pairs_end
        (i32.add (local.get $row) (i32.shl (i32.and (local.get $n) (i32.const -2)) (i32.const 3))))
      (local.set $p (i32.const 0))
      (loop $inner
        ;; row i of the result += A[i, p] * row p of B, two columns at a time
        (local.set $x (f64.load (local.get $a)))
        (local.set $xx (f64x2.splat (local.get $x)))
        (local.set $to (local.get $row))
        (local.set $from (local.get $b))
        (if (i32.lt_u (local.get $to) (local.get $pairs_end))
          (then
            (loop $pairs
              (v128.store (local.get $to)
                (f64x2.add
                  (v128.load (local.get $to))
                  (f64x2.mul (local.get $xx) (v128.load (local.get $from)))))
              (local.set $to (i32.add (local.get $to) (i32.const 16)))
              (local.set $from (i32.add (local.get $from) (i32.const 16)))
              (br_if $pairs (i32.lt_u (local.get $to) (local.get $pairs_end))))))
        (if (i32.lt_u (local.get $to) (local.get $end))
          (then
            (f64.store (local.get $to)
              (f64.add
                (f64.load (local.get $to))
                (f64.mul (local.get $x) (f64.load (local.get $from)))))))
        (local.set $a (i32.add (local.get $a) (i32.const 8)))
        (local.set $b (i32.add (local.get $b) (i32.shl (local.get $n) (i32.const 3))))
        (local.set $p (i32.add (local.get $p) (i32.const 1)))
        (br_if $inner (i32.lt_u (local.get $p) (local.get $k))))
      (local.set $row (local.get $end))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $rows (i32.lt_u (local.get $i) (local.get $m))))
    (call $result (local.get $out) (i32.add (local.get $octets) (i32.const 8)))))
