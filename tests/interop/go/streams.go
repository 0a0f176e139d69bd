package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	roletalk "github.com/xshkut/roletalk-go"
)

// stream is one end of a stream, with what has passed through it.  One of its two ends is nil.
type stream struct {
	readable *roletalk.Readable
	writable *roletalk.Writable
	signal   chan interface{}
	bytes    atomic.Int64
	mx       sync.Mutex // one command at a time moves bytes
	hash     hash.Hash
	random   *rand.Rand
}

// streams are the ends that commands name by number.
type streams struct {
	mx   sync.Mutex
	ends []*stream
}

func (s *streams) add(end *stream) int {
	end.hash = sha256.New()
	s.mx.Lock()
	defer s.mx.Unlock()
	s.ends = append(s.ends, end)
	end.random = rand.New(rand.NewSource(int64(len(s.ends))))
	return len(s.ends) - 1
}

func (s *streams) get(number int) (*stream, error) {
	s.mx.Lock()
	defer s.mx.Unlock()
	if number < 0 || number >= len(s.ends) {
		return nil, fmt.Errorf("no such stream: %v", number)
	}
	return s.ends[number], nil
}

func newReader(readable *roletalk.Readable) *stream {
	return &stream{readable: readable, signal: signalOfReadable(readable)}
}

func newWriter(writable *roletalk.Writable) *stream {
	return &stream{writable: writable, signal: signalOfWritable(writable)}
}

// serveStreams adds stream handlers to a role.  "accept" sends back the data of the request and
// reports the stream, "hang" does so when the command "release" comes; the two rejects are the two
// ways that roletalk-go has.
func (peer *controlled) serveStreams(role *roletalk.Role) {
	report := func(kind string, ctx *roletalk.RequestContext, end *stream) {
		peer.emit("stream", fields{
			"kind":   kind,
			"stream": peer.streams.add(end),
			"unit":   ctx.Unit().ID(),
			"value":  describe(ctx.Data, ctx.OriginData()),
		})
	}
	acceptReader := func(ctx *roletalk.ReaderRequestContext) {
		readable, err := ctx.Reply(sameType(ctx.Data, ctx.OriginData()))
		if err != nil {
			peer.emit("stream_failed", fields{"error": err.Error()})
			return
		}
		report("reader", ctx.RequestContext, newReader(readable))
	}
	acceptWriter := func(ctx *roletalk.WriterRequestContext) {
		writable, err := ctx.Reply(sameType(ctx.Data, ctx.OriginData()))
		if err != nil {
			peer.emit("stream_failed", fields{"error": err.Error()})
			return
		}
		report("writer", ctx.RequestContext, newWriter(writable))
	}
	role.OnReader("accept", acceptReader)
	role.OnWriter("accept", acceptWriter)
	role.OnReader("hang", func(ctx *roletalk.ReaderRequestContext) {
		peer.emit("hanging", fields{"unit": ctx.Unit().ID()})
		<-peer.release
		acceptReader(ctx)
	})
	role.OnWriter("hang", func(ctx *roletalk.WriterRequestContext) {
		peer.emit("hanging", fields{"unit": ctx.Unit().ID()})
		<-peer.release
		acceptWriter(ctx)
	})
	role.OnReader("reject", func(ctx *roletalk.ReaderRequestContext) {
		ctx.Reject("refused on purpose")
	})
	role.OnWriter("reject", func(ctx *roletalk.WriterRequestContext) {
		ctx.Reject("refused on purpose")
	})
	role.OnReader("reply_error", func(ctx *roletalk.ReaderRequestContext) {
		ctx.Err = errors.New("refused on purpose")
		ctx.Reply(nil)
	})
	role.OnWriter("reply_error", func(ctx *roletalk.WriterRequestContext) {
		ctx.Err = errors.New("refused on purpose")
		ctx.Reply(nil)
	})
}

// openStream asks for a stream; Which is the end that this peer gets, "reader" or "writer".
func (peer *controlled) openStream(command Command) (any, error) {
	options, err := peer.options(command)
	if err != nil {
		return nil, err
	}
	destination := peer.Destination(command.Role)
	var reply *roletalk.MessageContext
	var end *stream
	err = deliver(func() (err error) {
		switch command.Which {
		case "reader":
			var readable *roletalk.Readable
			if reply, readable, err = destination.NewReader(command.Event, options); err == nil {
				end = newReader(readable)
			}
		case "writer":
			var writable *roletalk.Writable
			if reply, writable, err = destination.NewWriter(command.Event, options); err == nil {
				end = newWriter(writable)
			}
		default:
			err = fmt.Errorf("no such end of a stream: %q", command.Which)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	value := describe(reply.Data, reply.OriginData())
	return fields{"stream": peer.streams.add(end), "value": value}, nil
}

// streamCommand runs what is asked of one stream, and tells what has passed through it by then
// and the error that ended it, "EOF" for the regular end.
func (peer *controlled) streamCommand(command Command) (any, error) {
	end, err := peer.streams.get(command.Stream)
	if err != nil {
		return nil, err
	}
	if command.Do == "stream_progress" {
		return end.bytes.Load(), nil
	}
	end.mx.Lock()
	defer end.mx.Unlock()
	var ended error
	switch command.Do {
	case "stream_read":
		ended = end.read(command.Size, command.Chunk)
	case "stream_write":
		ended = end.write(command.Size, command.Chunk)
	case "stream_close":
		ended = end.writable.Close()
	case "stream_abort":
		ended = end.abort(errors.New(command.Text))
	}
	text := ""
	if ended != nil {
		text = ended.Error()
	}
	sum := hex.EncodeToString(end.hash.Sum(nil))
	return fields{"bytes": end.bytes.Load(), "sha256": sum, "end": text}, nil
}

// read reads size bytes, or until the end when that is negative, at most chunk of them at a time.
func (end *stream) read(size, chunk int) error {
	defer end.nudge()()
	buffer := make([]byte, chunk)
	for left := size; left != 0; {
		window := buffer
		if left > 0 && left < chunk {
			window = buffer[:left]
		}
		n, err := end.readable.Read(window)
		if n > 0 {
			end.hash.Write(window[:n])
			end.bytes.Add(int64(n))
			if left > 0 {
				left -= n
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write writes size bytes, or until that fails when it is negative, chunk of them at a time.
func (end *stream) write(size, chunk int) error {
	defer end.nudge()()
	buffer := make([]byte, chunk)
	end.random.Read(buffer)
	for left := size; left != 0; {
		window := buffer
		if left > 0 && left < chunk {
			window = buffer[:left]
		}
		n, err := end.writable.Write(window)
		if err != nil {
			return err
		}
		if n != len(window) {
			return io.ErrShortWrite
		}
		end.hash.Write(window)
		end.bytes.Add(int64(n))
		if left > 0 {
			left -= n
		}
		// The next chunk is another, and costs less than random bytes do.
		first := buffer[0]
		copy(buffer, buffer[1:])
		buffer[len(buffer)-1] = first + 1
	}
	return nil
}

func (end *stream) abort(err error) error {
	if end.readable != nil {
		return end.readable.Destroy(err)
	}
	return end.writable.Destroy(err)
}

// nudge repeats the signal of a frame until the function that it returns is called.  Both ends of
// roletalk-go look whether there is anything to do and then wait for a signal that nobody keeps:
// one that is given in between is lost, and they wait for ever.  One too many does no harm.
func (end *stream) nudge() (stop func()) {
	stopped := make(chan struct{})
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-ticker.C:
			}
			select {
			case end.signal <- struct{}{}:
			default:
			}
		}
	}()
	return func() { close(stopped) }
}

// reveal makes a field that roletalk-go does not export usable.
func reveal(field reflect.Value) reflect.Value {
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
}

func signalOfWritable(writable *roletalk.Writable) chan interface{} {
	channel := reflect.ValueOf(writable).Elem().FieldByName("streamChannel").Elem()
	return reveal(channel.FieldByName("signal")).Interface().(chan interface{})
}

func signalOfReadable(readable *roletalk.Readable) chan interface{} {
	end := reflect.ValueOf(readable).Elem()
	controller := end.FieldByName("unit").Elem().FieldByName("streamCtr")
	mx := reveal(controller.FieldByName("mx")).Interface().(*sync.RWMutex)
	mx.RLock()
	defer mx.RUnlock()
	channel := reveal(controller.FieldByName("m")).MapIndex(reveal(end.FieldByName("c"))).Elem()
	return reveal(channel.FieldByName("signal")).Interface().(chan interface{})
}
