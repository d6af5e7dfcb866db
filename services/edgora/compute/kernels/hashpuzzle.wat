;; Proof of work: a nonce that makes SHA-256(header || nonce) begin with so many zero bits.
;;
;; Arguments: bits u32 (0 to 64), start u64, max_tries u64. Data: the header. The nonce is appended as 8 octets, big
;; endian; start, start + 1, ... are tried. Result, 52 octets: found u32 (0 or 1), tries u64, nonce u64 (little endian
;; all three), then the 32 octets of the hash; if nothing was found the nonce and hash of the last try.
;; The header's whole blocks are hashed once: each try costs one or two blocks. SHA-256: FIPS 180-4.
(module
  (memory (export "memory") 1)
  ;; 0 K (64 words)  256 W (64 words)  512 state (8 words)  544 state after the header's whole blocks  576 tail (128)
  (data (i32.const 0)
    "\98\2f\8a\42\91\44\37\71\cf\fb\c0\b5\a5\db\b5\e9\5b\c2\56\39\f1\11\f1\59\a4\82\3f\92\d5\5e\1c\ab"
    "\98\aa\07\d8\01\5b\83\12\be\85\31\24\c3\7d\0c\55\74\5d\be\72\fe\b1\de\80\a7\06\dc\9b\74\f1\9b\c1"
    "\c1\69\9b\e4\86\47\be\ef\c6\9d\c1\0f\cc\a1\0c\24\6f\2c\e9\2d\aa\84\74\4a\dc\a9\b0\5c\da\88\f9\76"
    "\52\51\3e\98\6d\c6\31\a8\c8\27\03\b0\c7\7f\59\bf\f3\0b\e0\c6\47\91\a7\d5\51\63\ca\06\67\29\29\14"
    "\85\0a\b7\27\38\21\1b\2e\fc\6d\2c\4d\13\0d\38\53\54\73\0a\65\bb\0a\6a\76\2e\c9\c2\81\85\2c\72\92"
    "\a1\e8\bf\a2\4b\66\1a\a8\70\8b\4b\c2\a3\51\6c\c7\19\e8\92\d1\24\06\99\d6\85\35\0e\f4\70\a0\6a\10"
    "\16\c1\a4\19\08\6c\37\1e\4c\77\48\27\b5\bc\b0\34\b3\0c\1c\39\4a\aa\d8\4e\4f\ca\9c\5b\f3\6f\2e\68"
    "\ee\82\8f\74\6f\63\a5\78\14\78\c8\84\08\02\c7\8c\fa\ff\be\90\eb\6c\50\a4\f7\a3\f9\be\f2\78\71\c6")
  (data (i32.const 512)
    "\67\e6\09\6a\85\ae\67\bb\72\f3\6e\3c\3a\f5\4f\a5\7f\52\0e\51\8c\68\05\9b\ab\d9\83\1f\19\cd\e0\5b")
  (global $brk (mut i32) (i32.const 704))
  ;; include alloc.wat

  ;; the other byte order
  (func $swap (param $x i32) (result i32)
    (i32.or
      (i32.and (i32.rotl (local.get $x) (i32.const 8)) (i32.const 0x00ff00ff))
      (i32.and (i32.rotr (local.get $x) (i32.const 8)) (i32.const 0xff00ff00))))

  (func $swap8 (param $x i64) (result i64)
    (i64.or
      (i64.shl (i64.extend_i32_u (call $swap (i32.wrap_i64 (local.get $x)))) (i64.const 32))
      (i64.extend_i32_u (call $swap (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 32)))))))

  ;; The compression function on one block, FIPS 180-4 6.2.2.
  (func $compress (param $block i32)
    (local $t i32) (local $x i32) (local $y i32) (local $t1 i32) (local $t2 i32)
    (local $a i32) (local $b i32) (local $c i32) (local $d i32)
    (local $e i32) (local $f i32) (local $g i32) (local $h i32)
    (loop $words
      (i32.store offset=256 (local.get $t) (call $swap (i32.load (i32.add (local.get $block) (local.get $t)))))
      (local.set $t (i32.add (local.get $t) (i32.const 4)))
      (br_if $words (i32.lt_u (local.get $t) (i32.const 64))))
    (loop $schedule
      ;; offsets are 256 - 4 * 15, - 4 * 2, - 4 * 16, - 4 * 7
      (local.set $x (i32.load offset=196 (local.get $t)))
      (local.set $y (i32.load offset=248 (local.get $t)))
      (i32.store offset=256 (local.get $t)
        (i32.add
          (i32.add
            (i32.load offset=192 (local.get $t))
            (i32.xor
              (i32.xor (i32.rotr (local.get $x) (i32.const 7)) (i32.rotr (local.get $x) (i32.const 18)))
              (i32.shr_u (local.get $x) (i32.const 3))))
          (i32.add
            (i32.load offset=228 (local.get $t))
            (i32.xor
              (i32.xor (i32.rotr (local.get $y) (i32.const 17)) (i32.rotr (local.get $y) (i32.const 19)))
              (i32.shr_u (local.get $y) (i32.const 10))))))
      (local.set $t (i32.add (local.get $t) (i32.const 4)))
      (br_if $schedule (i32.lt_u (local.get $t) (i32.const 256))))
    (local.set $a (i32.load (i32.const 512)))
    (local.set $b (i32.load (i32.const 516)))
    (local.set $c (i32.load (i32.const 520)))
    (local.set $d (i32.load (i32.const 524)))
    (local.set $e (i32.load (i32.const 528)))
    (local.set $f (i32.load (i32.const 532)))
    (local.set $g (i32.load (i32.const 536)))
    (local.set $h (i32.load (i32.const 540)))
    (local.set $t (i32.const 0))
    (loop $rounds
      (local.set $t1
        (i32.add
          (i32.add
            (i32.add (local.get $h) (i32.load (local.get $t)))
            (i32.load offset=256 (local.get $t)))
          (i32.add
            (i32.xor
              (i32.xor (i32.rotr (local.get $e) (i32.const 6)) (i32.rotr (local.get $e) (i32.const 11)))
              (i32.rotr (local.get $e) (i32.const 25)))
            (i32.xor
              (i32.and (local.get $e) (local.get $f))
              (i32.and (i32.xor (local.get $e) (i32.const -1)) (local.get $g))))))
      (local.set $t2
        (i32.add
          (i32.xor
            (i32.xor (i32.rotr (local.get $a) (i32.const 2)) (i32.rotr (local.get $a) (i32.const 13)))
            (i32.rotr (local.get $a) (i32.const 22)))
          (i32.xor
            (i32.and (local.get $a) (i32.xor (local.get $b) (local.get $c)))
            (i32.and (local.get $b) (local.get $c)))))
      (local.set $h (local.get $g))
      (local.set $g (local.get $f))
      (local.set $f (local.get $e))
      (local.set $e (i32.add (local.get $d) (local.get $t1)))
      (local.set $d (local.get $c))
      (local.set $c (local.get $b))
      (local.set $b (local.get $a))
      (local.set $a (i32.add (local.get $t1) (local.get $t2)))
      (local.set $t (i32.add (local.get $t) (i32.const 4)))
      (br_if $rounds (i32.lt_u (local.get $t) (i32.const 256))))
    (i32.store (i32.const 512) (i32.add (i32.load (i32.const 512)) (local.get $a)))
    (i32.store (i32.const 516) (i32.add (i32.load (i32.const 516)) (local.get $b)))
    (i32.store (i32.const 520) (i32.add (i32.load (i32.const 520)) (local.get $c)))
    (i32.store (i32.const 524) (i32.add (i32.load (i32.const 524)) (local.get $d)))
    (i32.store (i32.const 528) (i32.add (i32.load (i32.const 528)) (local.get $e)))
    (i32.store (i32.const 532) (i32.add (i32.load (i32.const 532)) (local.get $f)))
    (i32.store (i32.const 536) (i32.add (i32.load (i32.const 536)) (local.get $g)))
    (i32.store (i32.const 540) (i32.add (i32.load (i32.const 540)) (local.get $h))))

  (func (export "run") (param $in i32) (param $len i32) (result i64)
    (local $bits i64) (local $nonce i64) (local $most i64) (local $tries i64) (local $zeros i64)
    (local $from i32) (local $left i32) (local $total i32) (local $two i32) (local $nonce_at i32) (local $out i32)
    (if (i32.lt_u (local.get $len) (i32.const 20)) (then (unreachable)))
    (local.set $bits (i64.load32_u (local.get $in)))
    (local.set $nonce (i64.load offset=4 (local.get $in)))
    (local.set $most (i64.load offset=12 (local.get $in)))
    (if (i32.or (i64.gt_u (local.get $bits) (i64.const 64)) (i64.eqz (local.get $most))) (then (unreachable)))
    (local.set $from (i32.add (local.get $in) (i32.const 20)))
    (local.set $left (i32.sub (local.get $len) (i32.const 20)))
    (local.set $total (i32.add (local.get $left) (i32.const 8)))
    (block $whole
      (loop $blocks
        (br_if $whole (i32.lt_u (local.get $left) (i32.const 64)))
        (call $compress (local.get $from))
        (local.set $from (i32.add (local.get $from) (i32.const 64)))
        (local.set $left (i32.sub (local.get $left) (i32.const 64)))
        (br $blocks)))
    (memory.copy (i32.const 544) (i32.const 512) (i32.const 32))
    ;; tail: rest of the header, nonce, 0x80, zeros, length in bits, big endian
    (memory.copy (i32.const 576) (local.get $from) (local.get $left))
    (local.set $nonce_at (i32.add (i32.const 576) (local.get $left)))
    (i32.store8 offset=8 (local.get $nonce_at) (i32.const 0x80))
    (local.set $two (i32.gt_u (local.get $left) (i32.const 47)))
    (i64.store
      (select (i32.const 696) (i32.const 632) (local.get $two))
      (call $swap8 (i64.shl (i64.extend_i32_u (local.get $total)) (i64.const 3))))
    (local.set $out (call $room (i32.const 52)))
    (loop $search
      (i64.store (local.get $nonce_at) (call $swap8 (local.get $nonce)))
      (memory.copy (i32.const 512) (i32.const 544) (i32.const 32))
      (call $compress (i32.const 576))
      (if (local.get $two) (then (call $compress (i32.const 640))))
      (local.set $tries (i64.add (local.get $tries) (i64.const 1)))
      (local.set $zeros
        (i64.clz
          (i64.or
            (i64.shl (i64.load32_u (i32.const 512)) (i64.const 32))
            (i64.load32_u (i32.const 516)))))
      (if (i32.and
            (i64.lt_u (local.get $zeros) (local.get $bits))
            (i64.lt_u (local.get $tries) (local.get $most)))
        (then
          (local.set $nonce (i64.add (local.get $nonce) (i64.const 1)))
          (br $search))))
    (i32.store (local.get $out) (i64.ge_u (local.get $zeros) (local.get $bits)))
    (i64.store offset=4 (local.get $out) (local.get $tries))
    (i64.store offset=12 (local.get $out) (local.get $nonce))
    (local.set $left (i32.const 0))
    (loop $digest
      (i32.store offset=20
        (i32.add (local.get $out) (local.get $left))
        (call $swap (i32.load offset=512 (local.get $left))))
      (local.set $left (i32.add (local.get $left) (i32.const 4)))
      (br_if $digest (i32.lt_u (local.get $left) (i32.const 32))))
    (call $result (local.get $out) (i32.const 52))))
