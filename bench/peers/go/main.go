// Command benchpeer is either process of the contender "go" of the benchmark: `benchpeer server`,
// or `benchpeer client ADDRESS`.  Like the others it takes a command a line on standard input, as the
// JSON `[name, arguments]`, and answers a line of JSON, `{"answer", "cpu"}` or `{"error"}`; it ends with
// standard input.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

const (
	keyID  = "bench"
	key    = "not a secret: it is in the source"
	server = "bench"
	client = "bench-client"
)

// arguments are those of all commands; which of them count depends on the command.
type arguments struct {
	Event     string  `json:"event"`
	Size      int     `json:"size"`
	InFlight  int     `json:"in_flight"`
	Timed     bool    `json:"timed"`
	Count     int     `json:"count"`
	Direction string  `json:"direction"`
	Chunk     int     `json:"chunk"`
	Seconds   float64 `json:"seconds"`
}

func (a arguments) duration() time.Duration {
	return time.Duration(a.Seconds * float64(time.Second))
}

// result is what a command that measures answers; Count is of requests, messages or 10^6 bytes.
type result struct {
	Count     float64 `json:"count"`
	Seconds   float64 `json:"seconds"`
	Latencies []int64 `json:"latencies_ns"`
}

type command func(arguments) (any, error)

func main() {
	commands := map[string]command{"cpu": cpu, "settle": settle}
	var address any
	var err error
	switch {
	case len(os.Args) >= 2 && os.Args[1] == "server":
		address, err = serve(len(os.Args) > 2 && os.Args[2] == "tls")
	case len(os.Args) == 3 && os.Args[1] == "client":
		err = drive(os.Args[2], commands)
	default:
		err = errors.New("benchpeer server [tls], or benchpeer client ADDRESS")
	}
	if err == nil {
		err = obey(commands, address)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func newPeer() *roletalk.Peer {
	peer := roletalk.NewPeer(roletalk.PeerOptions{Name: "benchpeer"})
	peer.AddKey(keyID, key)
	return peer
}

// obey does what standard input says, until it ends.  The first line out is the address.
func obey(commands map[string]command, address any) error {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	if err := output.Encode(address); err != nil {
		return err
	}
	for {
		line, err := input.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var name string
		var given arguments
		if err := json.Unmarshal(line, &[]any{&name, &given}); err != nil {
			return err
		}
		if err := output.Encode(answer(commands, name, given)); err != nil {
			return err
		}
	}
}

func answer(commands map[string]command, name string, given arguments) map[string]any {
	run, known := commands[name]
	if !known {
		return map[string]any{"error": "no such command: " + name}
	}
	began := used()
	value, err := run(given)
	if err != nil {
		return map[string]any{"error": fmt.Sprintf("%v: %v", name, err)}
	}
	return map[string]any{"answer": value, "cpu": used() - began}
}

// used is the seconds of CPU, user and system, that this process has used.
func used() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func cpu(arguments) (any, error) {
	return used(), nil
}

// settle gives back what is garbage, before memory is measured.
func settle(arguments) (any, error) {
	debug.FreeOSMemory()
	return nil, nil
}
