;; Loads that miss the cache, each depending on the one before: the slowest fuel a machine has (market.md 9).
;;
;; Arguments: pages u32 (1 to 1000), steps u64, seed u64. Data: none (ignored). Result: the last value, u64.
;; Every 64-octet line of `pages` pages is written once; then x := (x + line) * 6364136223846793005 + 1442695040888963407
;; picks the next line by its upper half.
(module
  (memory (export "memory") 1)
  (global $brk (mut i32) (i32.const 16))
  ;; include alloc.wat

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $left i64) (local $x i64) (local $lines i64) (local $base i32) (local $i i32) (local $out i32)
    (if (i32.lt_u (local.get $len) (i32.const 20)) (then (unreachable)))
    (local.set $i (i32.load (local.get $in)))
    (if (i32.gt_u (i32.sub (local.get $i) (i32.const 1)) (i32.const 999)) (then (unreachable)))
    (local.set $left (i64.load offset=4 (local.get $in)))
    (local.set $x (i64.load offset=12 (local.get $in)))
    (local.set $lines (i64.shl (i64.extend_i32_u (local.get $i)) (i64.const 10)))
    (local.set $base (call $room (i32.shl (local.get $i) (i32.const 16))))
    (local.set $i (i32.shl (local.get $i) (i32.const 16)))
    (loop $fill
      (local.set $i (i32.sub (local.get $i) (i32.const 64)))
      (i64.store (i32.add (local.get $base) (local.get $i)) (i64.extend_i32_u (local.get $i)))
      (br_if $fill (local.get $i)))
    (block $done
      (loop $step
        (br_if $done (i64.eqz (local.get $left)))
        (local.set $x
          (i64.add
            (i64.mul
              (i64.add
                (local.get $x)
                (i64.load
                  (i32.add
                    (local.get $base)
                    (i32.shl
                      (i32.wrap_i64
                        (i64.shr_u
                          (i64.mul (i64.shr_u (local.get $x) (i64.const 32)) (local.get $lines))
                          (i64.const 32)))
                      (i32.const 6)))))
              (i64.const 6364136223846793005))
            (i64.const 1442695040888963407)))
        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
        (br $step)))
    (local.set $out (call $room (i32.const 8)))
    (i64.store (local.get $out) (local.get $x))
    (call $result (local.get $out) (i32.const 8))))
