// Command benchpeer is either process of the contender "go" of the benchmark: `benchpeer server`,
// or `benchpeer client PORT`.  Like the others it takes a command a line on standard input, as the
// JSON `[name, arguments]`, and answers a line of JSON; it ends with standard input.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
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
	Direction string  `json:"direction"`
	Chunk     int     `json:"chunk"`
	Seconds   float64 `json:"seconds"`
}

func (a arguments) duration() time.Duration {
	return time.Duration(a.Seconds * float64(time.Second))
}

type command func(arguments) (any, error)

func main() {
	peer := roletalk.NewPeer(roletalk.PeerOptions{Name: "benchpeer"})
	peer.AddKey(keyID, key)
	commands := map[string]command{"cpu": cpu}
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		serve(peer, commands)
	case len(os.Args) == 3 && os.Args[1] == "client":
		if err := drive(peer, os.Args[2], commands); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatal("benchpeer server, or benchpeer client PORT")
	}
	if err := obey(commands); err != nil {
		log.Fatal(err)
	}
}

func serve(peer *roletalk.Peer, commands map[string]command) {
	serveStreams(peer)
	address, err := peer.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	commands["port"] = func(arguments) (any, error) {
		return address.(*net.TCPAddr).Port, nil
	}
}

// drive connects to the server.  Its destination comes first: making one while a unit comes
// crashes roletalk-go.
func drive(peer *roletalk.Peer, port string, commands map[string]command) error {
	destination := peer.Destination(server)
	commands["stream"] = driveStreams(peer, destination)
	if _, err := peer.Connect("ws://127.0.0.1:" + port); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); !destination.Ready(); {
		if time.Now().After(deadline) {
			return errors.New("the server has not come")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func obey(commands map[string]command) error {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	if err := output.Encode(os.Getpid()); err != nil {
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
		run, known := commands[name]
		if !known {
			return fmt.Errorf("no such command: %q", name)
		}
		answer, err := run(given)
		if err != nil {
			return err
		}
		if err := output.Encode(answer); err != nil {
			return err
		}
	}
}

// cpu is the seconds of CPU, user and system, that this process has used.
func cpu(arguments) (any, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return nil, err
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9, nil
}
