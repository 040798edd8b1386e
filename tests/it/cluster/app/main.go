// Command app is what the tests run in pods: a server that answers its release and misbehaves as its environment says.
//
//	PORT           where it listens (8080)
//	RELEASE        what it answers
//	ON_TERM        graceful: it stops listening at once, lets requests that run end, and goes (the default)
//	               polite: as graceful, after it went on for two seconds with answers that end their connections
//	               late: as graceful, after it went on as before for LATE milliseconds (2000)
//	               abrupt: it goes at once, whatever runs
//	               ignore: it does not hear it
//	START_DELAY    milliseconds before it listens
//	EXIT_AT_START  its exit code, right at the start; EXIT_AFTER: milliseconds after which it exits with 9
//	EAT            megabytes of memory that it takes at the start
//	BAD            every answer but that of /health has the status 500
//	UNHEALTHY      /health has the status 503
//
// Paths: / and all others answer the release; /health; /slow?ms=N; /status/N; /host, /env, /head, /pid; /length (of what
// was sent), /echo (what was sent, piece by piece), /ws (an echo after an upgrade), /ask?HOST:PORT/PATH (what a neighbour
// answers), /burn?ms=N (a core, for as long), /exit?code=N, /say?TEXT (in its log). HTTP/1.1, and HTTP/2 without TLS.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var release = os.Getenv("RELEASE")

func main() {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGTERM, os.Interrupt)
	log.Printf("release %s begins", release)
	if code, is := number(os.Getenv("EXIT_AT_START")); is {
		log.Print("no database")
		os.Exit(code)
	}
	if ms, is := number(os.Getenv("EXIT_AFTER")); is {
		time.AfterFunc(milliseconds(ms), func() {
			log.Print("out of luck")
			os.Exit(9)
		})
	}
	if mb, is := number(os.Getenv("EAT")); is {
		eat(mb)
	}
	if ms, is := number(os.Getenv("START_DELAY")); is {
		time.Sleep(milliseconds(ms))
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: ":" + port, Handler: http.HandlerFunc(serve), Protocols: protocols}
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	for range heard {
		switch os.Getenv("ON_TERM") {
		case "ignore":
			log.Print("TERM: ignored")
			continue
		case "abrupt":
			log.Print("TERM: gone")
			os.Exit(143)
		case "polite":
			// Whoever speaks to it still is told to come back on another connection.
			leaving.Store(true)
			time.Sleep(2 * time.Second)
		case "late":
			ms, is := number(os.Getenv("LATE"))
			if !is {
				ms = 2000
			}
			time.Sleep(milliseconds(ms))
		}
		log.Print("TERM: finishing")
		_ = server.Shutdown(context.Background())
		upgraded.Wait()
		log.Print("done")
		return
	}
}

// Connections that are no HTTP any more: the server does not count them.
var upgraded sync.WaitGroup

// It heard TERM, and says so to whom it answers.
var leaving atomic.Bool

var eaten [][]byte

func eat(mb int) {
	for range mb {
		piece := make([]byte, 1<<20)
		for at := 0; at < len(piece); at += 4096 {
			piece[at] = 1
		}
		eaten = append(eaten, piece)
	}
}

func number(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func serve(to http.ResponseWriter, from *http.Request) {
	if leaving.Load() {
		to.Header().Set("Connection", "close")
	}
	answer, status := release, 200
	if os.Getenv("BAD") != "" && from.URL.Path != "/health" {
		status = 500
	}
	query := from.URL.Query()
	ms, _ := number(query.Get("ms"))
	switch path := from.URL.Path; {
	case path == "/health":
		if os.Getenv("UNHEALTHY") != "" {
			status = 503
		}
	case path == "/slow":
		time.Sleep(milliseconds(ms))
	case strings.HasPrefix(path, "/status/"):
		if n, is := number(strings.TrimPrefix(path, "/status/")); is && n >= 200 && n < 600 {
			status = n
		}
	case path == "/host":
		answer, _ = os.Hostname()
	case path == "/env":
		all := os.Environ()
		sort.Strings(all)
		answer = strings.Join(all, "\n")
	case path == "/head":
		head, _ := httputil.DumpRequest(from, false)
		answer = string(head)
	case path == "/pid":
		answer = strconv.Itoa(os.Getpid())
	case path == "/length":
		n, err := io.Copy(io.Discard, from.Body)
		if err != nil {
			return
		}
		answer = strconv.FormatInt(n, 10)
	case path == "/echo":
		echo(to, from)
		return
	case path == "/ws":
		upgrade(to)
		return
	case path == "/ask":
		answer, status = ask(from.URL.RawQuery)
	case path == "/burn":
		for end := time.Now().Add(milliseconds(ms)); time.Now().Before(end); {
		}
	case path == "/exit":
		code, _ := number(query.Get("code"))
		log.Printf("exit %d, as asked", code)
		os.Exit(code)
	case path == "/say":
		text, _ := url.QueryUnescape(from.URL.RawQuery)
		log.Print(text)
	}
	to.Header().Set("Content-Type", "text/plain")
	to.Header().Set("X-Release", release)
	to.WriteHeader(status)
	_, _ = io.WriteString(to, answer)
}

// echo sends each piece back as soon as it has come.
func echo(to http.ResponseWriter, from *http.Request) {
	control := http.NewResponseController(to)
	_ = control.EnableFullDuplex()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Body.Read(piece)
		if n > 0 {
			if _, failed := to.Write(piece[:n]); failed != nil {
				return
			}
			_ = control.Flush()
		}
		if err != nil {
			return
		}
	}
}

// upgrade makes a connection one that echoes, until its client ends it.
func upgrade(to http.ResponseWriter) {
	upgraded.Add(1)
	defer upgraded.Done()
	connection, buffered, err := http.NewResponseController(to).Hijack()
	if err != nil {
		http.Error(to, err.Error(), 400)
		return
	}
	defer connection.Close()
	fmt.Fprint(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(connection, buffered)
}

// ask is what a neighbour answers, and 502 if it does not.
func ask(where string) (string, int) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + where)
	if err != nil {
		return err.Error(), 502
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error(), 502
	}
	return string(text), answer.StatusCode
}
