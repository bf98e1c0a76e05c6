;; Is a command: it exports `_start` and nothing that handles a request.
(module
  (memory (export "memory") 1)
  (func (export "_start")))
