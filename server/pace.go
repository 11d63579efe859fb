package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Pace is how slow a client may be. Whoever progresses may take long (64 MiB
// over a bad line); whoever stalls holds a connection for nothing.
type Pace struct {
	// Stall is how long nothing may move, 30 seconds where it is zero.
	Stall time.Duration
	// Rate is the least progress in bytes per second, 8 KiB where it is zero.
	Rate int64
}

const (
	defaultStall = 30 * time.Second
	defaultRate  = 8 << 10
	// refusedTime is how long the rest of a refused upload may take to pass.
	refusedTime = 2 * time.Minute
	// stride is how much of an answer is sent under one deadline, in bytes: nearly
	// every crate in one write, since each one more wakes up the client once more.
	stride = 1<<20 + 64<<10
)

func (p Pace) orDefault() Pace {
	if p.Stall == 0 {
		p.Stall = defaultStall
	}
	if p.Rate == 0 {
		p.Rate = defaultRate
	}
	return p
}

// earned is how long moving n bytes may take beyond the first stall.
func (p Pace) earned(n int64) time.Duration {
	return time.Duration(float64(n) / float64(p.Rate) * float64(time.Second))
}

// errSlow ends a request whose body does not progress.
var errSlow = errors.New("the request's body arrives too slowly or has stalled; send it again over a better line")

// pacedBody ends reads of a body that does not progress. Deadlines are the
// operating system's, so they go by the real clock.
type pacedBody struct {
	io.ReadCloser
	pace    Pace
	control *http.ResponseController
	// start is when the body was first asked for: waiting for a place is not the client's fault.
	start, armed time.Time
	// end is when all of it must have come, zero for never.
	end    time.Time
	read   int64
	failed error
}

// paced bounds how slowly r's body may come; answers are bounded by response.
func (s *Server) paced(w http.ResponseWriter, r *http.Request) *pacedBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	b := &pacedBody{ReadCloser: r.Body, pace: s.pace, control: http.NewResponseController(w)}
	// A deadline of the answer before on this connection must not meet a "100 Continue".
	_ = b.control.SetWriteDeadline(time.Time{})
	if r.ProtoMajor == 1 {
		// What no handler reads, net/http does when it is done, to find the next request.
		// A stream of HTTP/2 is just closed, and there a deadline that passes cannot be taken back.
		_ = b.control.SetReadDeadline(time.Now().Add(b.pace.Stall))
	}
	return b
}

// Read implements io.Reader; after the body was too slow it is errSlow for ever.
func (b *pacedBody) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	b.arm()
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.failed, err = errSlow, errSlow
	case err != nil:
		// net/http now watches the connection for the client's leaving: a deadline would look like that.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *pacedBody) arm() {
	now := time.Now()
	if b.start.IsZero() {
		b.start = now
	}
	deadline := b.start.Add(b.pace.Stall + b.pace.earned(b.read))
	if stalled := now.Add(b.pace.Stall); stalled.Before(deadline) {
		deadline = stalled
	}
	if !b.end.IsZero() && b.end.Before(deadline) {
		deadline = b.end
	}
	if move := deadline.Sub(b.armed); move > b.pace.Stall/8 || move < 0 {
		_ = b.control.SetReadDeadline(deadline) // where it cannot be set there is no connection
		b.armed = deadline
	}
}

// comesWithin bounds how long r's body may take in all, however steadily it comes.
func comesWithin(r *http.Request, most time.Duration) {
	if b := observed(r.Context()).body; b != nil {
		b.end = time.Now().Add(most)
	}
}

// letPass reads and throws away what is left of a refused upload, up to most
// bytes and not for long: cargo reads the answer only when it has sent everything.
func letPass(r *http.Request, most int64) {
	comesWithin(r, refusedTime)
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, most))
}

// response counts what is answered, and ends answers that nobody takes.
type response struct {
	http.ResponseWriter
	pace   Pace
	status int
	bytes  int64
	// armed is the connection's write deadline as it was set last, zero for none.
	armed *time.Time
	// route is the one that answers, nil for a page and where there is none.
	route *route
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
		w.arm(0)
	}
	w.ResponseWriter.WriteHeader(status)
}

// armedKey is where a connection of HTTP/1 keeps its write deadline, *time.Time,
// from one request to the next: nothing else sets it.
type armedKey struct{}

// keepArmed is the server's http.Server.ConnContext.
func keepArmed(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, armedKey{}, new(time.Time))
}

// armedOf is where the write deadline of r's answer is kept: with the connection,
// but for the streams of HTTP/2, of which each has its own.
func armedOf(r *http.Request) *time.Time {
	if r.ProtoMajor == 1 {
		if armed, ok := r.Context().Value(armedKey{}).(*time.Time); ok {
			return armed
		}
	}
	return new(time.Time)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK // net/http writes the header with the first bytes
	}
	total := 0
	for { // stride by stride: of what lies in memory, too, nobody gets the whole time at once
		part := p[total:min(len(p), total+stride)]
		w.arm(int64(len(part)))
		n, err := w.ResponseWriter.Write(part)
		total += n
		w.bytes += int64(n)
		if err != nil || total == len(p) {
			return total, err
		}
	}
}

// ReadFrom implements io.ReaderFrom stride by stride, each in its time; files
// go out by sendfile where the connection can.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok { // HTTP/2
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	whole, limited := src.(*io.LimitedReader)
	var total int64
	for {
		part := &io.LimitedReader{R: src, N: stride}
		if limited { // one limit, not one in another: that is what sendfile knows
			part.R, part.N = whole.R, min(whole.N, stride)
		}
		want := part.N
		w.arm(want)
		n, err := to.ReadFrom(part)
		total += n
		w.bytes += n
		if limited {
			whole.N -= n
		}
		if err != nil || n < want || limited && whole.N == 0 {
			return total, err
		}
	}
}

// arm gives the next n bytes their time. It spares the system call where the
// deadline would hardly move.
func (w *response) arm(n int64) {
	deadline := time.Now().Add(w.pace.Stall + w.pace.earned(n))
	if deadline.Sub(*w.armed) < w.pace.Stall/8 {
		return
	}
	*w.armed = deadline
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(deadline)
}
