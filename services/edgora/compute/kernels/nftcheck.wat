;; Is this token with this owner and this metadata in the collection whose root is known? keccak-256 throughout.
;;
;; Arguments: root bytes32, token bytes32, owner bytes20, index u32, count u32, levels u32. Data: `levels` sibling
;; hashes of 32 octets, from the leaf up, then the metadata document.
;; The collection is a Merkle tree as the ledger's (wire/hashing.py): leaf = H(0x00 || token || owner || H(metadata)),
;; node = H(0x01 || left || right), a lone last node moves up unchanged. Result, 97 octets: 1 if the path leads to the
;; root, else 0; then H(metadata), the leaf, and the root that the path leads to. keccak: FIPS 202, padding 0x01.
(module
  (memory (export "memory") 1)
  ;; 0 round constants (24 u64)  192 lane order of rho and pi, then their rotations (24 octets each)
  ;; 256 state (25 u64)  464 last block (136)  600 leaf or node to hash (85)
  (data (i32.const 0)
    "\01\00\00\00\00\00\00\00\82\80\00\00\00\00\00\00\8a\80\00\00\00\00\00\80\00\80\00\80\00\00\00\80"
    "\8b\80\00\00\00\00\00\00\01\00\00\80\00\00\00\00\81\80\00\80\00\00\00\80\09\80\00\00\00\00\00\80"
    "\8a\00\00\00\00\00\00\00\88\00\00\00\00\00\00\00\09\80\00\80\00\00\00\00\0a\00\00\80\00\00\00\00"
    "\8b\80\00\80\00\00\00\00\8b\00\00\00\00\00\00\80\89\80\00\00\00\00\00\80\03\80\00\00\00\00\00\80"
    "\02\80\00\00\00\00\00\80\80\00\00\00\00\00\00\80\0a\80\00\00\00\00\00\00\0a\00\00\80\00\00\00\80"
    "\81\80\00\80\00\00\00\80\80\80\00\00\00\00\00\80\01\00\00\80\00\00\00\00\08\80\00\80\00\00\00\80")
  (data (i32.const 192)
    "\0a\07\0b\11\12\03\05\10\08\15\18\04\0f\17\13\0d\0c\02\14\0e\16\09\06\01"
    "\01\03\06\0a\0f\15\1c\24\2d\37\02\0e\1b\29\38\08\19\2b\3e\12\27\3d\14\2c")
  (global $brk (mut i32) (i32.const 704))
  ;; include alloc.wat

  (func $xor8 (param $at i32) (param $x i64)
    (i64.store offset=256 (local.get $at) (i64.xor (i64.load offset=256 (local.get $at)) (local.get $x))))

  ;; theta, one column: the five lanes that lie 40 octets apart
  (func $column (param $at i32) (result i64)
    (i64.xor
      (i64.xor
        (i64.xor (i64.load offset=256 (local.get $at)) (i64.load offset=296 (local.get $at)))
        (i64.xor (i64.load offset=336 (local.get $at)) (i64.load offset=376 (local.get $at))))
      (i64.load offset=416 (local.get $at))))
  (func $spread (param $at i32) (param $x i64)
    (call $xor8 (local.get $at) (local.get $x))
    (call $xor8 (i32.add (local.get $at) (i32.const 40)) (local.get $x))
    (call $xor8 (i32.add (local.get $at) (i32.const 80)) (local.get $x))
    (call $xor8 (i32.add (local.get $at) (i32.const 120)) (local.get $x))
    (call $xor8 (i32.add (local.get $at) (i32.const 160)) (local.get $x)))

  ;; keccak-f[1600] on the state, FIPS 202 3.3
  (func $permute
    (local $round i32) (local $i i32) (local $lane i32)
    (local $a i64) (local $b i64) (local $c i64) (local $d i64) (local $e i64) (local $t i64) (local $u i64)
    (loop $rounds
      (local.set $a (call $column (i32.const 0)))
      (local.set $b (call $column (i32.const 8)))
      (local.set $c (call $column (i32.const 16)))
      (local.set $d (call $column (i32.const 24)))
      (local.set $e (call $column (i32.const 32)))
      (call $spread (i32.const 0) (i64.xor (local.get $e) (i64.rotl (local.get $b) (i64.const 1))))
      (call $spread (i32.const 8) (i64.xor (local.get $a) (i64.rotl (local.get $c) (i64.const 1))))
      (call $spread (i32.const 16) (i64.xor (local.get $b) (i64.rotl (local.get $d) (i64.const 1))))
      (call $spread (i32.const 24) (i64.xor (local.get $c) (i64.rotl (local.get $e) (i64.const 1))))
      (call $spread (i32.const 32) (i64.xor (local.get $d) (i64.rotl (local.get $a) (i64.const 1))))
      ;; rho and pi
      (local.set $t (i64.load (i32.const 264)))
      (local.set $i (i32.const 0))
      (loop $lanes
        (local.set $lane (i32.shl (i32.load8_u offset=192 (local.get $i)) (i32.const 3)))
        (local.set $u (i64.load offset=256 (local.get $lane)))
        (i64.store offset=256 (local.get $lane)
          (i64.rotl (local.get $t) (i64.load8_u offset=216 (local.get $i))))
        (local.set $t (local.get $u))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $lanes (i32.lt_u (local.get $i) (i32.const 24))))
      ;; chi
      (local.set $i (i32.const 0))
      (loop $rows
        (local.set $a (i64.load offset=256 (local.get $i)))
        (local.set $b (i64.load offset=264 (local.get $i)))
        (local.set $c (i64.load offset=272 (local.get $i)))
        (local.set $d (i64.load offset=280 (local.get $i)))
        (local.set $e (i64.load offset=288 (local.get $i)))
        (call $xor8 (local.get $i) (i64.and (i64.xor (local.get $b) (i64.const -1)) (local.get $c)))
        (call $xor8 (i32.add (local.get $i) (i32.const 8))
          (i64.and (i64.xor (local.get $c) (i64.const -1)) (local.get $d)))
        (call $xor8 (i32.add (local.get $i) (i32.const 16))
          (i64.and (i64.xor (local.get $d) (i64.const -1)) (local.get $e)))
        (call $xor8 (i32.add (local.get $i) (i32.const 24))
          (i64.and (i64.xor (local.get $e) (i64.const -1)) (local.get $a)))
        (call $xor8 (i32.add (local.get $i) (i32.const 32))
          (i64.and (i64.xor (local.get $a) (i64.const -1)) (local.get $b)))
        (local.set $i (i32.add (local.get $i) (i32.const 40)))
        (br_if $rows (i32.lt_u (local.get $i) (i32.const 200))))
      ;; iota
      (call $xor8 (i32.const 0) (i64.load (local.get $round)))
      (local.set $round (i32.add (local.get $round) (i32.const 8)))
      (br_if $rounds (i32.lt_u (local.get $round) (i32.const 192)))))

  ;; XOR a block of 136 octets into the state, and permute.
  (func $absorb (param $block i32)
    (local $i i32)
    (loop $words
      (call $xor8 (local.get $i) (i64.load (i32.add (local.get $block) (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 8)))
      (br_if $words (i32.lt_u (local.get $i) (i32.const 136))))
    (call $permute))

  ;; H($from, $len) to the 32 octets at $to, which may overlap.
  (func $hash (param $from i32) (param $len i32) (param $to i32)
    (memory.fill (i32.const 256) (i32.const 0) (i32.const 344))
    (block $whole
      (loop $blocks
        (br_if $whole (i32.lt_u (local.get $len) (i32.const 136)))
        (call $absorb (local.get $from))
        (local.set $from (i32.add (local.get $from) (i32.const 136)))
        (local.set $len (i32.sub (local.get $len) (i32.const 136)))
        (br $blocks)))
    (memory.copy (i32.const 464) (local.get $from) (local.get $len))
    (i32.store8 offset=464 (local.get $len) (i32.const 1))
    (i32.store8 (i32.const 599) (i32.or (i32.load8_u (i32.const 599)) (i32.const 0x80)))
    (call $absorb (i32.const 464))
    (memory.copy (local.get $to) (i32.const 256) (i32.const 32)))

  ;; Node over the two hashes at 601 and 633, to $to.
  (func $node (param $left i32) (param $right i32) (param $to i32)
    (i32.store8 (i32.const 600) (i32.const 1))
    (memory.copy (i32.const 601) (local.get $left) (i32.const 32))
    (memory.copy (i32.const 633) (local.get $right) (i32.const 32))
    (call $hash (i32.const 600) (i32.const 65) (local.get $to)))

  ;; 1 if the 32 octets are the same.
  (func $same (param $a i32) (param $b i32) (result i32)
    (i64.eqz
      (i64.or
        (i64.or
          (i64.xor (i64.load (local.get $a)) (i64.load (local.get $b)))
          (i64.xor (i64.load offset=8 (local.get $a)) (i64.load offset=8 (local.get $b))))
        (i64.or
          (i64.xor (i64.load offset=16 (local.get $a)) (i64.load offset=16 (local.get $b)))
          (i64.xor (i64.load offset=24 (local.get $a)) (i64.load offset=24 (local.get $b)))))))

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $index i32) (local $count i32) (local $levels i32) (local $path i32) (local $path_end i32)
    (local $out i32) (local $node i32) (local $ok i32)
    (if (i32.lt_u (local.get $len) (i32.const 96)) (then (unreachable)))
    (local.set $index (i32.load offset=84 (local.get $in)))
    (local.set $count (i32.load offset=88 (local.get $in)))
    (local.set $levels (i32.load offset=92 (local.get $in)))
    (if (i32.gt_u (local.get $levels) (i32.const 32)) (then (unreachable)))
    (local.set $path (i32.add (local.get $in) (i32.const 96)))
    (local.set $path_end (i32.add (local.get $path) (i32.shl (local.get $levels) (i32.const 5))))
    (if (i32.gt_u (local.get $path_end) (i32.add (local.get $in) (local.get $len))) (then (unreachable)))
    (local.set $out (call $room (i32.const 97)))
    ;; H(metadata) at out + 1, leaf at out + 33, node at out + 65
    (call $hash
      (local.get $path_end)
      (i32.sub (i32.add (local.get $in) (local.get $len)) (local.get $path_end))
      (i32.add (local.get $out) (i32.const 1)))
    (i32.store8 (i32.const 600) (i32.const 0))
    (memory.copy (i32.const 601) (i32.add (local.get $in) (i32.const 32)) (i32.const 52))
    (memory.copy (i32.const 653) (i32.add (local.get $out) (i32.const 1)) (i32.const 32))
    (call $hash (i32.const 600) (i32.const 85) (i32.add (local.get $out) (i32.const 33)))
    (local.set $node (i32.add (local.get $out) (i32.const 65)))
    (memory.copy (local.get $node) (i32.add (local.get $out) (i32.const 33)) (i32.const 32))
    (local.set $ok (i32.lt_u (local.get $index) (local.get $count)))
    (block $top
      (loop $level
        (br_if $top (i32.or (i32.eqz (local.get $ok)) (i32.le_u (local.get $count) (i32.const 1))))
        ;; a lone last node moves up; any other takes a sibling
        (if (i32.or
              (i32.and (local.get $index) (i32.const 1))
              (i32.lt_u (i32.add (local.get $index) (i32.const 1)) (local.get $count)))
          (then
            (if (i32.eq (local.get $path) (local.get $path_end))
              (then (local.set $ok (i32.const 0)))
              (else
                (if (i32.and (local.get $index) (i32.const 1))
                  (then (call $node (local.get $path) (local.get $node) (local.get $node)))
                  (else (call $node (local.get $node) (local.get $path) (local.get $node))))
                (local.set $path (i32.add (local.get $path) (i32.const 32)))))))
        (local.set $index (i32.shr_u (local.get $index) (i32.const 1)))
        (local.set $count (i32.add (i32.shr_u (local.get $count) (i32.const 1)) (i32.and (local.get $count) (i32.const 1))))
        (br $level)))
    (i32.store8 (local.get $out)
      (i32.and
        (i32.and (local.get $ok) (i32.eq (local.get $path) (local.get $path_end)))
        (call $same (local.get $node) (local.get $in))))
    (call $result (local.get $out) (i32.const 97))))
