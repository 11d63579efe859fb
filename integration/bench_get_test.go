package integration

import (
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// getCase is a GET as it is measured: what of ours is asked, and what the others serve.
type getCase struct {
	name, path, kind string
	// session is sent along; conditional asks with the ETag of what is there.
	session, conditional bool
	// requests in each round, and the most CPU time as a ratio to the bare handler's.
	requests int
	aim      float64
}

// BenchmarkGET: the server's CPU time per request and requests per second of
// index files and downloads, against a bare net/http handler that writes the
// same bytes and nginx with the same file.
func BenchmarkGET(b *testing.B) {
	l := benchServer(b, "--anonymous-read")
	const crate, large = "bench-crate", "bench-large"
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range 12 {
		version := fmt.Sprintf("0.1.%d", i)
		sent(b, l, l.operator.signUpload(crate, version, newRelease(rng, 0, crate, version, 100).crate))
	}
	sent(b, l, l.operator.signUpload(large, "0.1.0", newRelease(rng, 0, large, "0.1.0", 1<<20).crate))
	index, download := "/index/be/nc/"+crate, "/api/v1/crates/"+large+"/0.1.0/download"
	for _, c := range []getCase{
		{name: "index GET, anonymous", path: "/public" + index, kind: "text/plain; charset=utf-8", requests: 20_000, aim: 1.25},
		{name: "index GET, authenticated", path: index, kind: "text/plain; charset=utf-8", session: true, requests: 20_000, aim: 1.25},
		{name: "index GET, 304", path: index, kind: "text/plain; charset=utf-8", session: true, conditional: true, requests: 20_000, aim: 1.25},
		{name: "download of 1 MiB", path: download, kind: "application/gzip", session: true, requests: 1_000, aim: 1.1},
	} {
		b.Run(c.name, func(b *testing.B) { c.measure(b, l) })
	}
}

func sent(b *testing.B, l *lab, u upload) {
	b.Helper()
	if status, answer, err := u.send(l); err != nil || status != http.StatusOK {
		b.Fatalf("publish: %d %s %v", status, answer, err)
	}
}

func (c getCase) measure(b *testing.B, l *lab) {
	token := ""
	if c.session {
		token = l.operator.session("read", 0)
	}
	body, etag := fetched(b, l.url+c.path, token)
	folder := benchFolder(b)
	writeFiles(b, folder, map[string]string{"file": string(body)})
	servers := []process{
		l.process(), bareServer(b, filepath.Join(folder, "file"), c.kind, etag), nginxServer(b, folder, "", ""),
	}
	var requests []request
	for i, p := range servers {
		path, header, status := "/file", []string(nil), http.StatusOK
		if i == 0 {
			path = c.path
		}
		if c.session { // a kilobyte of header that all of them have to read
			header = append(header, "Authorization", token)
		}
		if c.conditional {
			_, theirs := fetched(b, p.url+path, token)
			header, status = append(header, "If-None-Match", theirs), http.StatusNotModified
		}
		requests = append(requests, asking(p.url, path, status, header...))
	}
	for b.Loop() {
		c.rounds(b, servers, requests, len(body))
	}
}

// rounds prints what ours takes in comparison.
func (c getCase) rounds(b *testing.B, servers []process, requests []request, size int) {
	b.Helper()
	var cpu, rate [3]series // by server: ratios to the bare one
	var own [3]time.Duration
	for i := range servers {
		load(b, servers[i].url, requests[i], c.requests/4)
	}
	for range benchRounds {
		var used, took [3]time.Duration
		for i, p := range servers {
			before := p.cpu(b)
			took[i] = load(b, p.url, requests[i], c.requests)
			used[i] = p.cpu(b) - before
		}
		for i := range servers {
			cpu[i] = append(cpu[i], float64(used[i])/float64(used[1]))
			rate[i] = append(rate[i], float64(took[1])/float64(took[i]))
			own[i] += used[i]
		}
	}
	say(b, "%s, %d bytes", c.name, size)
	machine(b)
	for i, p := range servers {
		say(b, "  %-16s %8.1f µs of CPU per request", p.name, float64(own[i].Microseconds())/float64(benchRounds*c.requests))
	}
	against(b, "CPU, of the bare handler's", cpu[0], c.aim, true)
	say(b, "  %-34s %s", "requests/s, of the bare handler's", rate[0])
	say(b, "  %-34s %s", "nginx: CPU, of the bare handler's", cpu[2])
	say(b, "  %-34s %s", "nginx: requests/s, of the same", rate[2])
}
