// Command gopeer is a roletalk-go peer that is told what to do: it reads commands as JSON, one a
// line, from standard input and writes answers and events, one a line, to standard output.  It
// ends with standard input, so it never outlives the tests.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gorilla/websocket"
	roletalk "github.com/xshkut/roletalk-go"
)

type fields map[string]any

type controlled struct {
	*roletalk.Peer
	outMx    sync.Mutex
	out      *json.Encoder
	connsMx  sync.Mutex
	accepted []net.Conn
	dialled  []net.Conn
	counter  atomic.Int64
	release  chan struct{}
	gate     gate
	streams  streams
}

// emit writes an event, under the key "event".
func (peer *controlled) emit(name string, event fields) {
	event["event"] = name
	peer.write(event)
}

func (peer *controlled) write(line fields) {
	peer.outMx.Lock()
	defer peer.outMx.Unlock()
	if err := peer.out.Encode(line); err != nil {
		log.Fatal(err)
	}
}

// announce reports a unit that has come, and its end.
func (peer *controlled) announce(unit *roletalk.Unit) {
	id := unit.ID()
	unit.OnClose(func(err error) {
		peer.emit("unit_closed", fields{"unit": id, "error": fmt.Sprint(err)})
	})
	peer.emit("unit", fields{"unit": id, "name": unit.Name(), "roles": unit.GetRoles()})
}

// watch creates a destination and reports the units that it gets.
func (peer *controlled) watch(role string) {
	peer.Destination(role).OnUnit(func(unit *roletalk.Unit) {
		peer.emit("destination_unit", fields{"role": role, "unit": unit.ID()})
	})
	peer.Destination(role).OnClose(func() {
		peer.emit("destination_closed", fields{"role": role})
	})
}

// ServeHTTP does what roletalk's own does, but keeps the connection for "cut" and reports how the
// handshake went: "accepted" comes when the unit can be written to.
func (peer *controlled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		peer.emit("refused", fields{"error": err.Error()})
		return
	}
	unit, err := peer.InvolveConn(conn)
	if err != nil {
		peer.emit("refused", fields{"error": err.Error()})
		return
	}
	peer.connsMx.Lock()
	peer.accepted = append(peer.accepted, conn.UnderlyingConn())
	peer.connsMx.Unlock()
	peer.emit("accepted", fields{"unit": unit.ID()})
}

func (peer *controlled) listen(address string) (string, error) {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return "", err
	}
	go func() {
		log.Fatal(http.Serve(listener, peer))
	}()
	return listener.Addr().String(), nil
}

// dial is what roletalk's dialler dials with; it keeps the connection for "cut".
func (peer *controlled) dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err == nil {
		peer.connsMx.Lock()
		peer.dialled = append(peer.dialled, conn)
		peer.connsMx.Unlock()
	}
	return conn, err
}

// cut drops connections without a closing handshake, those accepted or those dialled.  From here
// on Go cannot write to them, so whatever it answers goes another way.
func (peer *controlled) cut(which string) int {
	peer.connsMx.Lock()
	defer peer.connsMx.Unlock()
	conns := &peer.accepted
	if which == "dialled" {
		conns = &peer.dialled
	}
	count := len(*conns)
	for _, conn := range *conns {
		conn.Close()
	}
	*conns = nil
	return count
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func main() {
	var roles, destinations, keys list
	name := flag.String("name", "go", "name of the peer")
	friendly := flag.Bool("friendly", true, "follow acquaint messages")
	address := flag.String("listen", "", "address to listen on, as host:port")
	flag.Var(&roles, "role", "role to serve (repeatable)")
	flag.Var(&destinations, "destination", "role to use (repeatable)")
	flag.Var(&keys, "key", "preshared key, as id=key (repeatable)")
	flag.Parse()

	peer := &controlled{
		Peer:    roletalk.NewPeer(roletalk.PeerOptions{Name: *name, Friendly: *friendly}),
		out:     json.NewEncoder(os.Stdout),
		release: make(chan struct{}),
	}
	websocket.DefaultDialer.NetDial = peer.dial
	for _, key := range keys {
		id, secret, found := strings.Cut(key, "=")
		if !found {
			log.Fatalf("not id=key: %q", key)
		}
		peer.AddKey(id, secret)
	}
	for _, role := range roles {
		peer.serve(role)
	}
	for _, role := range destinations {
		peer.watch(role)
	}
	peer.OnUnit(peer.announce)
	bound := ""
	if *address != "" {
		var err error
		if bound, err = peer.listen(*address); err != nil {
			log.Fatal(err)
		}
	}
	peer.emit("ready", fields{"peer": peer.ID(), "address": bound})
	peer.obey(os.Stdin)
}

// obey runs every command in a goroutine of its own, so that one that waits holds up no other.
func (peer *controlled) obey(input io.Reader) {
	commands := json.NewDecoder(bufio.NewReader(input))
	for {
		var command Command
		if err := commands.Decode(&command); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		go func() {
			result, err := peer.execute(command)
			if err != nil {
				peer.write(fields{"id": command.ID, "error": err.Error()})
			} else {
				peer.write(fields{"id": command.ID, "result": result})
			}
		}()
	}
}
