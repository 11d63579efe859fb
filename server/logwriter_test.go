package server

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// countedWrites is a file that takes its time.
type countedWrites struct {
	mu    sync.Mutex
	text  bytes.Buffer
	calls int
}

func (c *countedWrites) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	return c.text.Write(p)
}

func (c *countedWrites) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func TestLogLinesAreWrittenTogetherWholeAndInOrder(t *testing.T) {
	const writers, lines = 8, 2000
	file := new(countedWrites)
	l := NewLogWriter(file)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range lines {
				fmt.Fprintf(l, "%d %d %s\n", w, i, strings.Repeat("x", 200))
			}
		})
	}
	all.Wait()
	l.Close()
	var next [writers]int
	for line := range strings.Lines(file.String()) {
		var w, i int
		var rest string
		if _, err := fmt.Sscanf(line, "%d %d %s\n", &w, &i, &rest); err != nil || len(rest) != 200 || i != next[w] {
			t.Fatalf("%q is not line %d of %d: %v", line, next[w], w, err)
		}
		next[w]++
	}
	for w, n := range next {
		if n != lines {
			t.Errorf("writer %d: %d lines of %d", w, n, lines)
		}
	}
	if file.calls > writers*lines/10 {
		t.Errorf("%d lines took %d writes", writers*lines, file.calls)
	}
	fmt.Fprintln(l, "late")
	if !strings.HasSuffix(file.String(), "late\n") {
		t.Error("a line after Close is lost")
	}
}

// slowFile takes long for every write, and notes whether two came at once.
type slowFile struct {
	countedWrites
	busy, twice atomic.Bool
}

func (f *slowFile) Write(p []byte) (int, error) {
	if f.busy.Swap(true) {
		f.twice.Store(true)
	}
	defer f.busy.Store(false)
	time.Sleep(2 * logDelay)
	return f.countedWrites.Write(p)
}

func TestLinesAfterCloseComeBehindThoseThatWaited(t *testing.T) {
	file := new(slowFile)
	l := NewLogWriter(file)
	fmt.Fprintln(l, "first")
	var closing sync.WaitGroup
	closing.Go(func() { l.Close() })
	for range 3 {
		time.Sleep(time.Millisecond)
		closing.Go(func() { fmt.Fprintln(l, "late") })
	}
	closing.Wait()
	if text := file.String(); text != "first\nlate\nlate\nlate\n" || file.twice.Load() {
		t.Errorf("%q; two at once: %t", text, file.twice.Load())
	}
}

func TestALineIsWrittenSoonWithoutClose(t *testing.T) {
	file := new(countedWrites)
	l := NewLogWriter(file)
	defer l.Close()
	for i := range 3 { // each after the one before was written
		fmt.Fprintln(l, "line", i)
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(file.String(), fmt.Sprintln("line", i)); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("line %d is not written", i)
			}
		}
	}
}
