package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

const (
	bulk     = "bulk"
	received = "received"

	attempts = 3
	patience = 1500 * time.Millisecond

	// roletalk-go wakes a reader or a writer only if it is already asleep, so that a finish which
	// comes in between is missed.  A second one does no harm.
	finishes      = 20
	finishesEvery = 50 * time.Millisecond
)

// read tells what the reading end saw: bytes, and the time until the last of them.
func read(reader io.Reader, chunk int) (result, error) {
	buffer := make([]byte, chunk)
	began := time.Now()
	last := began
	bytes := 0
	for {
		n, err := reader.Read(buffer)
		if n > 0 {
			bytes += n
			last = time.Now()
		}
		if errors.Is(err, io.EOF) {
			return result{Count: float64(bytes) / 1e6, Seconds: last.Sub(began).Seconds()}, nil
		} else if err != nil {
			return result{}, err
		}
	}
}

func write(writer io.WriteCloser, a arguments) error {
	chunk := make([]byte, a.Chunk)
	for until := time.Now().Add(a.duration()); time.Now().Before(until); {
		if _, err := writer.Write(chunk); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	go func() {
		for i := 1; i < finishes; i++ {
			time.Sleep(finishesEvery)
			if writer.Close() != nil {
				return
			}
		}
	}()
	return nil
}

// serveStreams tells what was read in a message, not in a reply to a request: a roletalk-go peer
// takes part in a stream only while both ends count their streams and correlations in step.
func serveStreams(peer *roletalk.Peer) {
	role := peer.Role(server)
	clients := peer.Destination(client)
	role.OnReader(bulk, func(ctx *roletalk.ReaderRequestContext) {
		var given arguments
		if err := json.Unmarshal(ctx.OriginData().Data, &given); err != nil {
			return
		}
		reader, err := ctx.Reply(true)
		if err != nil {
			return
		}
		seen, err := read(reader, given.Chunk)
		if err != nil {
			return
		}
		clients.Send(received, roletalk.EmitOptions{Unit: ctx.Unit(), Data: seen})
	})
	role.OnWriter(bulk, func(ctx *roletalk.WriterRequestContext) {
		var given arguments
		if err := json.Unmarshal(ctx.OriginData().Data, &given); err != nil {
			return
		}
		writer, err := ctx.Reply(true)
		if err != nil {
			return
		}
		write(writer, given)
	})
}

// driveStreams is the command "stream".  One that stalls, as it may for a wake-up that was missed,
// is left behind and tried again.
func driveStreams(peer *roletalk.Peer, destination *roletalk.Destination) command {
	uploads := make(chan result, attempts)
	peer.Role(client).OnMessage(received, func(ctx *roletalk.MessageContext) {
		var seen result
		if err := json.Unmarshal(ctx.OriginData().Data, &seen); err == nil {
			uploads <- seen
		}
	})

	return func(a arguments) (any, error) {
		failure := fmt.Errorf("%d streams stalled", attempts)
		for i := 0; i < attempts; i++ {
			tallies, failures := uploads, make(chan error, 1)
			if a.Direction == "up" {
				go func() { failures <- upload(destination, a) }()
			} else {
				tallies = make(chan result, 1)
				go func() {
					seen, err := download(destination, a)
					if err == nil {
						tallies <- seen
					}
					failures <- err
				}()
			}
			late := time.After(a.duration() + patience)
			for waiting := true; waiting; {
				select {
				case seen := <-tallies:
					return seen, nil
				case err := <-failures:
					if err != nil {
						return nil, err
					}
					failures = nil
				case <-late:
					waiting = false
				}
			}
		}
		return nil, failure
	}
}

func options(a arguments) roletalk.EmitOptions {
	return roletalk.EmitOptions{Data: a, Timeout: patience}
}

func upload(destination *roletalk.Destination, a arguments) error {
	_, writer, err := destination.NewWriter(bulk, options(a))
	if err != nil {
		return err
	}
	return write(writer, a)
}

func download(destination *roletalk.Destination, a arguments) (result, error) {
	_, reader, err := destination.NewReader(bulk, options(a))
	if err != nil {
		return result{}, err
	}
	return read(reader, a.Chunk)
}
