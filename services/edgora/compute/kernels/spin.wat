;; Arithmetic and nothing else: a 64-bit congruential generator with a shift, so many rounds.
;;
;; Arguments: rounds u64, seed u64. Data: none (ignored). Result: the last value, u64 little endian.
;; x := x * 6364136223846793005 + 1442695040888963407; x := x xor (x >> 33). The fastest fuel a machine has.
(module
  (memory (export "memory") 1)
  (global $brk (mut i32) (i32.const 16))
  ;; include alloc.wat

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $left i64) (local $x i64) (local $out i32)
    (if (i32.lt_u (local.get $len) (i32.const 16)) (then (unreachable)))
    (local.set $left (i64.load (local.get $in)))
    (local.set $x (i64.load offset=8 (local.get $in)))
    (block $done
      (loop $round
        (br_if $done (i64.eqz (local.get $left)))
        (local.set $x
          (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
        (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 33))))
        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
        (br $round)))
    (local.set $out (call $room (i32.const 8)))
    (i64.store (local.get $out) (local.get $x))
    (call $result (local.get $out) (i32.const 8))))
