;; Writes to stdout what a terminal would take for commands: colours, a title, a bell, a move of
;; the cursor, C1 controls and an override of the direction of writing.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\37\00\00\00")
  (data (i32.const 16)
    "begin \1b[31mred\1b]0;title\07 \0d\1b[2Jgone \c2\9b1m \e2\80\aeevil \ff\00 end\0a")
  (func (export "handle_request") (result i64)
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i64.const 0)))
