package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

// Command is one line of standard input.  Which fields count depends on Do.
type Command struct {
	ID          int    `json:"id"`
	Do          string `json:"do"`
	Address     string `json:"address"`
	URL         string `json:"url"`
	Reconnect   bool   `json:"reconnect"`
	Role        string `json:"role"`
	Event       string `json:"event"`
	Unit        string `json:"unit"`
	Value       Value  `json:"value"`
	TimeoutMS   int    `json:"timeout_ms"`
	Which       string `json:"which"`
	Count       int    `json:"count"`
	Concurrency int    `json:"concurrency"`
	Stream      int    `json:"stream"`
	Size        int    `json:"size"`
	Chunk       int    `json:"chunk"`
	Text        string `json:"text"`
}

func (peer *controlled) execute(command Command) (any, error) {
	switch command.Do {
	case "listen":
		return peer.listen(command.Address)
	case "connect":
		options := roletalk.ConnectOptions{DoNotReconnect: !command.Reconnect}
		unit, err := peer.Connect(command.URL, options)
		if err != nil {
			return nil, err
		}
		return unit.ID(), nil
	case "role":
		peer.serve(command.Role)
		return nil, nil
	case "enable":
		peer.Role(command.Role).Enable()
		return nil, nil
	case "disable":
		peer.Role(command.Role).Disable()
		return nil, nil
	case "destination":
		peer.watch(command.Role)
		return nil, nil
	case "destinations":
		return peer.describeDestinations(), nil
	case "units":
		return peer.describeUnits(), nil
	case "send":
		return nil, peer.send(command)
	case "send_numbers":
		return nil, peer.sendNumbers(command)
	case "request":
		return peer.request(command)
	case "burst":
		return peer.burst(command)
	case "stream_open":
		return peer.openStream(command)
	case "stream_read", "stream_write", "stream_close", "stream_abort", "stream_progress":
		return peer.streamCommand(command)
	case "release":
		peer.release <- struct{}{}
		return nil, nil
	case "close_unit":
		unit := peer.Unit(command.Unit)
		if unit == nil {
			return nil, fmt.Errorf("no such unit: %q", command.Unit)
		}
		unit.Close()
		return nil, nil
	case "cut":
		return peer.cut(command.Which), nil
	}
	return nil, fmt.Errorf("no such command: %q", command.Do)
}

func (peer *controlled) describeDestinations() map[string][]string {
	destinations := make(map[string][]string)
	for _, name := range peer.ListDestinations() {
		ids := []string{}
		for _, unit := range peer.Destination(name).Units() {
			// A unit that is gone can stay in its destinations for ever, see `deliver`.
			if unit.Connected() {
				ids = append(ids, unit.ID())
			}
		}
		destinations[name] = ids
	}
	return destinations
}

func (peer *controlled) describeUnits() []fields {
	units := []fields{}
	for _, unit := range peer.Units() {
		units = append(units, fields{
			"id":       unit.ID(),
			"name":     unit.Name(),
			"friendly": unit.Friendly(),
			"roles":    unit.GetRoles(),
			"meta":     unit.Meta(),
		})
	}
	return units
}

func (peer *controlled) options(command Command) (options roletalk.EmitOptions, err error) {
	if command.Unit != "" {
		if options.Unit = peer.Unit(command.Unit); options.Unit == nil {
			return options, fmt.Errorf("no such unit: %q", command.Unit)
		}
	}
	options.Timeout = time.Duration(command.TimeoutMS) * time.Millisecond
	options.Data, err = command.Value.decode()
	return options, err
}

// deliver repeats what could not be written at all.  A roletalk-go peer announces a unit before
// the connection belongs to it, and does not always take a unit that is gone out of its
// destinations; in both cases it finds no connection to write to.
func deliver(write func() error) error {
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := write()
		if err == nil || time.Now().After(deadline) ||
			!strings.Contains(err.Error(), "Tried connections: 0,") {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (peer *controlled) send(command Command) error {
	options, err := peer.options(command)
	if err != nil {
		return err
	}
	return deliver(func() error {
		return peer.Destination(command.Role).Send(command.Event, options)
	})
}

// sendNumbers sends 0, 1, 2 … one after another.
func (peer *controlled) sendNumbers(command Command) error {
	command.Value = Value{T: "nil"}
	options, err := peer.options(command)
	if err != nil {
		return err
	}
	for i := 0; i < command.Count; i++ {
		options.Data = i
		err := deliver(func() error {
			return peer.Destination(command.Role).Send(command.Event, options)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (peer *controlled) request(command Command) (reply Value, err error) {
	options, err := peer.options(command)
	if err != nil {
		return reply, err
	}
	err = deliver(func() error {
		ctx, err := peer.Destination(command.Role).Request(command.Event, options)
		if err == nil {
			reply = describe(ctx.Data, ctx.OriginData())
		}
		return err
	})
	return reply, err
}

// burst makes Count requests, Concurrency of them at a time, each with its index and with the
// index expected as the answer; it returns how many were answered so.
func (peer *controlled) burst(command Command) (int, error) {
	command.Value = Value{T: "nil"}
	base, err := peer.options(command)
	if err != nil {
		return 0, err
	}
	destination := peer.Destination(command.Role)
	indices := make(chan int)
	var workers sync.WaitGroup
	var mx sync.Mutex
	var answered int
	var failures []error
	for n := 0; n < command.Concurrency; n++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for index := range indices {
				options := base
				options.Data = index
				ctx, err := destination.Request(command.Event, options)
				if err == nil && ctx.Data != float64(index) {
					err = fmt.Errorf("request %v was answered %v", index, ctx.Data)
				}
				mx.Lock()
				if err == nil {
					answered++
				} else {
					failures = append(failures, err)
				}
				mx.Unlock()
			}
		}()
	}
	for index := 0; index < command.Count; index++ {
		indices <- index
	}
	close(indices)
	workers.Wait()
	if len(failures) > 0 {
		return answered, errors.Join(failures[:min(len(failures), 5)]...)
	}
	return answered, nil
}
