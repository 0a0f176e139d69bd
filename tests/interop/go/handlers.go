package main

import (
	"encoding/json"
	"sync"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

// gate holds requests back until a given number of them are waiting.
type gate struct {
	mx      sync.Mutex
	waiting int
	opened  chan struct{}
}

func (g *gate) wait(n int) {
	g.mx.Lock()
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
	opened := g.opened
	g.waiting++
	if g.waiting == n {
		g.waiting, g.opened = 0, nil
		close(opened)
	}
	g.mx.Unlock()
	<-opened
}

// serve makes a role with every handler that the tests know.
func (peer *controlled) serve(name string) *roletalk.Role {
	role := peer.Role(name)
	role.OnMessage("", func(ctx *roletalk.MessageContext) {
		peer.emit("message", fields{
			"role":  ctx.Role(),
			"name":  ctx.Event(),
			"unit":  ctx.Unit().ID(),
			"value": describe(ctx.Data, ctx.OriginData()),
		})
	})
	role.OnRequest("echo", func(ctx *roletalk.RequestContext) {
		ctx.Reply(sameType(ctx.Data, ctx.OriginData()))
	})
	role.OnRequest("describe", func(ctx *roletalk.RequestContext) {
		ctx.Reply(describe(ctx.Data, ctx.OriginData()))
	})
	role.OnRequest("fail", func(ctx *roletalk.RequestContext) {
		ctx.Reject("refused on purpose")
	})
	role.OnRequest("fail_null", func(ctx *roletalk.RequestContext) {
		ctx.Reject(nil)
	})
	role.OnRequest("sum", func(ctx *roletalk.RequestContext) {
		var numbers []float64
		if err := json.Unmarshal(ctx.OriginData().Data, &numbers); err != nil {
			ctx.Reject(err)
			return
		}
		total := 0.0
		for _, number := range numbers {
			total += number
		}
		ctx.Reply(total)
	})
	role.OnRequest("count", func(ctx *roletalk.RequestContext) {
		ctx.Reply(peer.counter.Add(1))
	})
	// "slow" answers after that many milliseconds, "hang" when the command "release" comes.
	role.OnRequest("slow", func(ctx *roletalk.RequestContext) {
		pause, _ := ctx.Data.(float64)
		time.Sleep(time.Duration(pause * float64(time.Millisecond)))
		ctx.Reply("slow")
	})
	role.OnRequest("hang", func(ctx *roletalk.RequestContext) {
		peer.emit("hanging", fields{"unit": ctx.Unit().ID()})
		<-peer.release
		ctx.Reply("released")
	})
	role.OnRequest("gate", func(ctx *roletalk.RequestContext) {
		var data struct{ Index, Of int }
		if err := json.Unmarshal(ctx.OriginData().Data, &data); err != nil {
			ctx.Reject(err)
			return
		}
		peer.gate.wait(data.Of)
		ctx.Reply(data.Index)
	})
	peer.serveStreams(role)
	return role
}
