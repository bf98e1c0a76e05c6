// The peer of /hello: "Hello, World!" from Go's net/http, as its own documentation would write it.
// GOMAXPROCS in the environment says how many cores it may use.
//
//	usage: hello ADDR
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, "Hello, World!")
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
	log.Fatal(http.Serve(listener, http.HandlerFunc(hello)))
}
