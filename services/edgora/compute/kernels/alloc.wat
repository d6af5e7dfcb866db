  ;; Included by every kernel. Room from the end of the kernel's own data upwards; nothing is ever freed, and fresh
  ;; memory is zero. Answers 0 if the memory cannot grow so far.
  (func $alloc (export "alloc") (param $len i32) (result i32)
    (local $at i32) (local $end i32) (local $need i32)
    (local.set $at (global.get $brk))
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (if (i32.lt_u (local.get $end) (local.get $at)) (then (return (i32.const 0))))
    (local.set $need (i32.add (i32.shr_u (i32.sub (local.get $end) (i32.const 1)) (i32.const 16)) (i32.const 1)))
    (if (i32.gt_u (local.get $need) (memory.size))
      (then
        (if (i32.eq (memory.grow (i32.sub (local.get $need) (memory.size))) (i32.const -1))
          (then (return (i32.const 0))))))
    (global.set $brk (i32.and (i32.add (local.get $end) (i32.const 15)) (i32.const -16)))
    (local.get $at))

  ;; As $alloc, for the kernel itself: stops it if there is no room.
  (func $room (param $len i32) (result i32)
    (local $at i32)
    (local.set $at (call $alloc (local.get $len)))
    (if (i32.eqz (local.get $at)) (then (unreachable)))
    (local.get $at))

  ;; The result of run: pointer in the upper half, length in the lower.
  (func $result (param $at i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))
