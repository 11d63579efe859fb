package server

import (
	"io"
	"sync"
	"time"
)

const (
	// logDelay is how long a line waits for others: what a killed process may not have written.
	logDelay = 5 * time.Millisecond
	// logRoom bounds the bytes that wait; whoever finds no room waits for the writing.
	logRoom = 1 << 20
)

// LogWriter writes the lines of a log a few milliseconds late, many with one
// system call, in their order and each of them whole. Close writes what waits.
// A process that is killed, or a machine that loses power, loses the lines of its last
// milliseconds, which tell of nothing that the registry's own log does not hold.
type LogWriter struct {
	to      io.Writer
	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	closed  bool
	ended   bool // run has written all that waited
	wake    chan struct{}
	done    chan struct{}
}

// NewLogWriter returns a LogWriter to to, which one goroutine writes to at a time.
func NewLogWriter(to io.Writer) *LogWriter {
	l := &LogWriter{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.changed.L = &l.mu
	go l.run()
	return l
}

// Write implements io.Writer; it never fails. Lines after Close are written at
// once, behind those that waited.
func (l *LogWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 && len(l.waiting)+len(line) > logRoom && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		for !l.ended {
			l.changed.Wait()
		}
		_, _ = l.to.Write(line)
		return len(line), nil
	}
	if len(l.waiting) == 0 {
		l.wake <- struct{}{} // there is room: run has taken the last one
	}
	l.waiting = append(l.waiting, line...)
	return len(line), nil
}

// Close writes what waits and returns when it is written.
func (l *LogWriter) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.wake)
		l.changed.Broadcast()
	}
	l.mu.Unlock()
	<-l.done
	return nil
}

func (l *LogWriter) run() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		time.Sleep(logDelay)
		spare = l.flush(spare)
	}
	l.flush(spare)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.changed.Broadcast()
}

// flush writes what waits, and lets spare take its place.
func (l *LogWriter) flush(spare []byte) []byte {
	l.mu.Lock()
	lines := l.waiting
	l.waiting = spare[:0]
	l.changed.Broadcast()
	l.mu.Unlock()
	if len(lines) > 0 {
		_, _ = l.to.Write(lines) // there is nowhere to say that the log cannot be written
	}
	return lines
}
