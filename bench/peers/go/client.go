package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

const (
	connectTime = 5 * time.Second
	requestTime = 10 * time.Second
	countTime   = 15 * time.Second
	opening     = 16 // connections at a time
)

// connected is the server as a new peer sees it.  The destination comes first: making one while a
// unit comes crashes roletalk-go.
func connected(url string) (*roletalk.Peer, *roletalk.Destination, error) {
	peer := newPeer()
	destination := peer.Destination(server)
	options := roletalk.ConnectOptions{InsecureTLS: true, DoNotReconnect: true}
	if _, err := peer.Connect(url, options); err != nil {
		return nil, nil, err
	}
	for deadline := time.Now().Add(connectTime); !destination.Ready(); {
		if time.Now().After(deadline) {
			return nil, nil, errors.New("the server has not come")
		}
		time.Sleep(time.Millisecond)
	}
	return peer, destination, nil
}

// drive connects to the server at an address as `serve` tells it.
func drive(address string, commands map[string]command) error {
	url := "ws://127.0.0.1:" + address
	if address[0] == '"' {
		if err := json.Unmarshal([]byte(address), &url); err != nil {
			return err
		}
	}
	peer, destination, err := connected(url)
	if err != nil {
		return err
	}
	others := many{url: url}
	commands["stream"] = driveStreams(peer, destination)
	commands["messages"] = func(a arguments) (any, error) {
		return send(destination, a)
	}
	commands["requests"] = func(a arguments) (any, error) {
		destinations := make([]*roletalk.Destination, a.InFlight)
		for i := range destinations {
			destinations[i] = destination
		}
		return keepRequesting(destinations, a)
	}
	commands["open"] = others.open
	commands["each"] = func(a arguments) (any, error) {
		return keepRequesting(others.destinations, a)
	}
	return nil
}

func payload(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i)
	}
	return data
}

// keepRequesting makes one request after the other to each of destinations.
func keepRequesting(destinations []*roletalk.Destination, a arguments) (any, error) {
	data := payload(a.Size)
	options := roletalk.EmitOptions{Data: data, Timeout: requestTime}
	var requests sync.WaitGroup
	var count atomic.Int64
	var failure atomic.Pointer[error]
	latencies := make([][]int64, len(destinations))
	began := time.Now()
	until := began.Add(a.duration())
	for i, destination := range destinations {
		requests.Add(1)
		go func(i int, destination *roletalk.Destination) {
			defer requests.Done()
			var own int64
			for sent := time.Now(); sent.Before(until); {
				ctx, err := destination.Request(a.Event, options)
				if err == nil && own == 0 && !bytes.Equal(ctx.OriginData().Data, data) {
					err = errors.New("the echo is not what was sent")
				}
				if err != nil {
					failure.Store(&err)
					return
				}
				own++
				now := time.Now()
				if a.Timed {
					latencies[i] = append(latencies[i], now.Sub(sent).Nanoseconds())
				}
				sent = now
			}
			count.Add(own)
		}(i, destination)
	}
	requests.Wait()
	if err := failure.Load(); err != nil {
		return nil, *err
	}
	answer := result{Count: float64(count.Load()), Seconds: time.Since(began).Seconds()}
	for _, some := range latencies {
		answer.Latencies = append(answer.Latencies, some...)
	}
	return answer, nil
}

// send writes messages, and waits until the server has counted all of them.
func send(destination *roletalk.Destination, a arguments) (any, error) {
	before, err := counted(destination)
	if err != nil {
		return nil, err
	}
	options := roletalk.EmitOptions{Data: payload(a.Size)}
	sent := 0.0
	began := time.Now()
	for until := began.Add(a.duration()); time.Now().Before(until); {
		for i := 0; i < 64; i++ {
			if err := destination.Send("count", options); err != nil {
				return nil, err
			}
			sent++
		}
	}
	for deadline := time.Now().Add(countTime); ; time.Sleep(time.Millisecond) {
		now, err := counted(destination)
		if err != nil {
			return nil, err
		}
		if now-before == sent {
			return result{Count: sent, Seconds: time.Since(began).Seconds()}, nil
		}
		if now-before > sent || time.Now().After(deadline) {
			return nil, fmt.Errorf("%v messages were sent, %v arrived", sent, now-before)
		}
	}
}

func counted(destination *roletalk.Destination) (number float64, err error) {
	options := roletalk.EmitOptions{Timeout: countTime}
	ctx, err := destination.Request("counted", options)
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal(ctx.OriginData().Data, &number)
	return number, err
}

// many is more connections to the same server, each of a peer of its own.
type many struct {
	url          string
	peers        []*roletalk.Peer
	destinations []*roletalk.Destination
}

func (m *many) open(a arguments) (any, error) {
	for len(m.peers) > a.Count {
		last := len(m.peers) - 1
		for _, unit := range m.peers[last].Units() {
			unit.Close()
		}
		m.peers, m.destinations = m.peers[:last], m.destinations[:last]
	}
	for len(m.peers) < a.Count {
		some := min(opening, a.Count-len(m.peers))
		peers := make([]*roletalk.Peer, some)
		destinations := make([]*roletalk.Destination, some)
		failures := make([]error, some)
		var connecting sync.WaitGroup
		for i := range peers {
			connecting.Add(1)
			go func(i int) {
				defer connecting.Done()
				peers[i], destinations[i], failures[i] = connected(m.url)
			}(i)
		}
		connecting.Wait()
		if err := errors.Join(failures...); err != nil {
			return nil, err
		}
		m.peers = append(m.peers, peers...)
		m.destinations = append(m.destinations, destinations...)
	}
	return nil, nil
}
