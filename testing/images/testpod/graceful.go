package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/slipway-dev/slipway/testing/load"
)

// graceful is the server an application should be: asked to end, it stops listening at once and finishes what it has.
// It waits for nothing before that.
func graceful(args []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var unready atomic.Bool
	var asked atomic.Int32
	version := arg(args, 0, "v1")
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		if work, err := time.ParseDuration(r.FormValue("work")); err == nil {
			time.Sleep(work)
		}
		fmt.Fprintln(w, version, host)
	})
	mux.HandleFunc("/bulk", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("bytes"))
		w.Write(make([]byte, n))
	})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/flip", func(http.ResponseWriter, *http.Request) { unready.Store(!unready.Load()) })
	server := &http.Server{Addr: arg(args, 1, ":8080"), Handler: mux}
	ended := make(chan error, 1)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		go func() {
			for range signals {
				fmt.Println("asked to end again", asked.Add(1))
			}
		}()
		ended <- server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return <-ended
}

// serial is a server that takes one caller after the other, while the next ones wait at its door. Asked to end, it stops
// listening at once and finishes whom it has.
func serial(args []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		listener.Close()
	}()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			time.Sleep(3 * time.Millisecond)
			text := arg(args, 0, "v1") + " " + host
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
		}
		conn.Close()
	}
}

// caller calls URLs until it is asked to end, and answers GET / with its reports.
func caller(args []string) error {
	var ways []load.Way
	for _, url := range args {
		for response, err := http.Get(url); err != nil || response.StatusCode != http.StatusOK; response, err = http.Get(url) {
			time.Sleep(10 * time.Millisecond) // not there yet
		}
		ways = append(ways, load.Way{Name: "new " + url, URL: url, Pause: 5 * time.Millisecond},
			load.Way{Name: "kept " + url, URL: url, KeepAlive: true, Renew: 100, Pause: 5 * time.Millisecond})
	}
	calls := load.Start(ways...)
	go endOnTerm()
	return http.ListenAndServe(":8081", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(calls.Reports()); err != nil {
			fmt.Println(err)
		}
	}))
}
