// Command inventory is a service in Go: it serves the role "inventory", and asks the role "prices",
// which a Python peer serves.  It prints its address, and ends when its standard input does.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

var stock = map[string]float64{"tea": 120, "coffee": 45}

func main() {
	peer := roletalk.NewPeer(roletalk.PeerOptions{Name: "inventory", Friendly: true})
	// From the environment: the arguments of a process are everybody's to read.
	if id, key, found := strings.Cut(os.Getenv("INVENTORY_KEY"), "="); found {
		peer.AddKey(id, key)
	}
	prices := peer.Destination("prices")

	inventory := peer.Role("inventory")
	// A number arrives as float64, an object as JSON text, binary as []byte.
	inventory.OnRequest("count", func(ctx *roletalk.RequestContext) {
		item, _ := ctx.Data.(string)
		count, found := stock[item]
		if !found {
			ctx.Reject("no such item: " + item) // roletalk-go sends no text: the caller gets "rejected"
			return
		}
		ctx.Reply(count)
	})
	inventory.OnRequest("value", func(ctx *roletalk.RequestContext) {
		var asked struct{ Item string }
		if err := json.Unmarshal(ctx.OriginData().Data, &asked); err != nil {
			ctx.Reject(err)
			return
		}
		// Back to the peer that asks us, over the connection that it made.
		options := roletalk.EmitOptions{Data: asked.Item, Timeout: 5 * time.Second}
		answer, err := prices.Request("of", options)
		if err != nil {
			ctx.Reject(err)
			return
		}
		price, _ := answer.Data.(float64)
		ctx.Reply(map[string]any{"item": asked.Item, "value": stock[asked.Item] * price})
	})

	address, err := peer.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(address)
	io.Copy(io.Discard, os.Stdin)
}
