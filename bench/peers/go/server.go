package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	roletalk "github.com/xshkut/roletalk-go"
)

// serve listens, and tells the port, or the URL of a server that speaks TLS.
func serve(secure bool) (any, error) {
	peer := newPeer()
	role := peer.Role(server)
	var received atomic.Int64

	role.OnRequest("echo", func(ctx *roletalk.RequestContext) {
		ctx.Reply(ctx.OriginData().Data)
	})
	role.OnMessage("count", func(*roletalk.MessageContext) {
		received.Add(1)
	})
	role.OnRequest("counted", func(ctx *roletalk.RequestContext) {
		ctx.Reply(received.Load())
	})
	serveStreams(peer)

	if !secure {
		address, err := peer.Listen("127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		return address.(*net.TCPAddr).Port, nil
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	listening := http.Server{
		Handler:   peer,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	go func() { log.Fatal(listening.ServeTLS(listener, "", "")) }()
	return "wss://" + listener.Addr().String(), nil
}

// selfSigned makes a certificate: roletalk-go takes no authority, its client can only trust blindly.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, nil
}
