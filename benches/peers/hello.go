// The peer that is Go's net/http, as its own documentation would write it: "Hello, World!", and
// /fib/N as guests/src/workload.rs computes it. GOMAXPROCS in the environment says how many cores
// it may use.
//
//	usage: hello ADDR
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

const fibMax = 40

const fibExpected = "expected one decimal number from 0 to 40 after the route, as in /fib/32\n"

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	digits, isFib := strings.CutPrefix(r.URL.Path, "/fib/")
	if !isFib {
		io.WriteString(w, "Hello, World!")
		return
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	// What does not read back the same had a sign or leading zeros.
	if err != nil || n > fibMax || strconv.FormatUint(n, 10) != digits {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, fibExpected)
		return
	}
	io.WriteString(w, strconv.FormatUint(fibonacci(uint32(n)), 10)+"\n")
}

// By naive recursion, which is the point: it costs calls and nothing else.
func fibonacci(n uint32) uint64 {
	if n < 2 {
		return uint64(n)
	}
	return fibonacci(n-1) + fibonacci(n-2)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: hello ADDR")
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(answer)))
}
