package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The benchmarks compare the registry with something simpler that does the same
// work, in rounds that take turns, and print the median of the rounds' ratios:
// absolute figures mean nothing on shared machines. docs/PERFORMANCE.md says how
// they are read. Servers run on core 0, what loads them on the others
// (`make bench` starts this program there).
const (
	benchRounds = 7
	// unstableFrom is the spread, the range of the rounds' ratios as a part of
	// their median, from which a figure is not to be relied on.
	unstableFrom = 0.10
	serverCore   = "0"
	everyCore    = "0-63"
)

// series is one ratio, round by round.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

func (s series) spread() float64 { return (slices.Max(s) - slices.Min(s)) / s.median() }

// String is the median with its spread.
func (s series) String() string {
	text := fmt.Sprintf("%.2f (spread %.0f %%)", s.median(), 100*s.spread())
	if s.spread() > unstableFrom {
		text += " unstable"
	}
	return text
}

// say prints a line of the report.
func say(b *testing.B, format string, args ...any) {
	b.Helper()
	fmt.Printf(format+"\n", args...)
}

// against prints what a figure should be.
func against(b *testing.B, what string, s series, aim float64, atMost bool) {
	b.Helper()
	word, met := "at least", s.median() >= aim
	if atMost {
		word, met = "at most", s.median() <= aim
	}
	verdict := "met"
	if !met {
		verdict = "missed"
	}
	say(b, "  %-34s %s; aim %s %.2f: %s", what, s, word, aim, verdict)
	b.ReportMetric(s.median(), strings.ReplaceAll(what, " ", "-"))
	b.ReportMetric(0, "ns/op")
}

// process is a server to be measured.
type process struct {
	name, url string
	pid       int
}

// cpu is the time that p's threads have been running on a core.
func (p process) cpu(b *testing.B) time.Duration {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	if err != nil || len(threads) == 0 {
		b.Fatalf("%s has ended, or this kernel keeps no schedstat: %v", p.name, err)
	}
	var sum time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // a thread that has ended
		}
		running, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// pinned is the command that runs program on the servers' core.
func pinned(program string, args ...string) *exec.Cmd {
	return exec.Command("taskset", append([]string{"-c", serverCore, program}, args...)...)
}

// runFor runs cmd until the benchmark ends.
func runFor(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// benchFolder is made anew, and readable by servers that give up being root.
func benchFolder(b *testing.B) string {
	b.Helper()
	folder, err := os.MkdirTemp("", "aln-bench-*")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		b.Fatal(err)
	}
	return folder
}

// benchServer is a lab whose server is built and run as in production, but on
// one core: requests logged to a file, everything else as shipped.
func benchServer(b *testing.B, flags ...string) *lab {
	b.Helper()
	folder := benchFolder(b)
	log, err := os.Create(filepath.Join(folder, "server.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	l := &lab{
		t: b, data: filepath.Join(folder, "data"), flags: flags, url: "http://" + steadyAddress(b),
		pinned: true, logTo: log,
	}
	l.operator = newUserIn(b, filepath.Join(folder, "operator"))
	l.start()
	b.Cleanup(l.stop)
	l.operator.login(l, l.operator.folder)
	return l
}

func (l *lab) process() process { return process{"aln-registry", l.url, l.cmd.Process.Pid} }

// machine says what the figures were measured on.
func machine(b *testing.B) {
	b.Helper()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		b.Fatal(err)
	}
	model := "unknown"
	for line := range strings.Lines(string(cpu)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	say(b, "  on %s, %s, load average %s", model, runtime.Version(), strings.Join(strings.Fields(string(load))[:3], " "))
}
