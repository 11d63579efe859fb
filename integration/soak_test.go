package integration

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// `make soak` gives the folder in which the long form of the crash and fault tests
// keeps how far it has come.
var soakFolder = flag.String("soak", "", "run the long form of the crash and fault tests, and keep in this folder how far it has come")

const (
	// soakKills is how often something is killed on each pair of engines, soakPerLab
	// how often in one lab: with its log all checks grow.
	soakKills  = 500
	soakPerLab = 20
	// soakFaults is how often the faults are gone through.
	soakFaults = 50
)

// soaked is how far one test has come.
type soaked struct {
	// Done counts kills, or rounds of faults; Killed them by whom they met.
	Done   int            `json:"done"`
	Killed map[string]int `json:"killed,omitempty"`
	// Acknowledged changes, of which none may be lost.
	Acknowledged int `json:"acknowledged"`
	// Labs were begun, each by a seed.
	Labs int `json:"labs"`
	// Failures are the seeds that found something, with what the test was at.
	Failures []string `json:"failures,omitempty"`
	Seconds  float64  `json:"seconds"`
}

// soak is the state of all tests, in a file that is replaced as a whole.
type soak struct {
	mu   sync.Mutex
	path string
	// Seed is drawn once; all others follow from it.
	Seed  uint64             `json:"seed"`
	Tests map[string]*soaked `json:"tests"`
}

func openSoak(t *testing.T) *soak {
	t.Helper()
	if err := os.MkdirAll(*soakFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &soak{path: filepath.Join(*soakFolder, "state.json"), Seed: rand.Uint64(), Tests: map[string]*soaked{}}
	data, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return s
}

// note changes what is known of a test, and keeps it.
func (s *soak) note(t *testing.T, name string, change func(*soaked)) soaked {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.Tests[name]
	if one == nil {
		one = &soaked{Killed: map[string]int{}}
		s.Tests[name] = one
	}
	change(one)
	data, err := json.MarshalIndent(s, "", "\t")
	if err == nil {
		err = os.WriteFile(s.path+".new", append(data, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return *one
}

// say prints at once: a soak is watched, and ended at any time.
func (s *soak) say(format string, args ...any) {
	fmt.Printf("%s "+format+"\n", append([]any{time.Now().UTC().Format(time.RFC3339)}, args...)...)
}

// kills goes on killing on pair until it has been done soakKills times, in labs
// whose seeds follow from the soak's.
func (s *soak) kills(t *testing.T, number int, pair mortalPair) {
	for {
		now := s.note(t, pair.name, func(one *soaked) {})
		if now.Done >= soakKills {
			s.say("%s: %d kills are done", pair.name, now.Done)
			return
		}
		s.note(t, pair.name, func(one *soaked) { one.Labs++ })
		seed, stream := s.Seed, uint64(1000*(number+1)+now.Labs)
		t.Run(fmt.Sprintf("lab %d", now.Labs), func(t *testing.T) {
			k := 0
			defer func() {
				if t.Failed() {
					s.note(t, pair.name, func(one *soaked) {
						one.Failures = append(one.Failures, fmt.Sprintf("seed %d %d, kill %d", seed, stream, k))
					})
				}
			}()
			lab := newMortalLab(t, pair.open(t), rand.New(rand.NewPCG(seed, stream)))
			for ; k < min(soakPerLab, soakKills-now.Done); k++ {
				s.oneKill(t, pair.name, lab, k)
				if t.Failed() {
					t.Fatalf("seed %d %d, kill %d; the server said:\n%s", seed, stream, k, lab.lastWords())
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

func (s *soak) oneKill(t *testing.T, name string, lab *mortalLab, k int) {
	began, killed, acknowledged := time.Now(), maps.Clone(lab.killed), lab.acknowledgements()
	lab.oneKill(k)
	one := s.note(t, name, func(one *soaked) {
		one.Done++
		one.Acknowledged += lab.acknowledgements() - acknowledged
		one.Seconds += time.Since(began).Seconds()
		for victim, n := range lab.killed {
			one.Killed[victim] += n - killed[victim]
		}
	})
	if one.Done%soakPerLab == 0 {
		s.say("%s: %d kills, %d changes acknowledged, none lost", name, one.Done, one.Acknowledged)
	}
}

// TestSoakIsResumed: what was done is not done again, whenever it was ended.
func TestSoakIsResumed(t *testing.T) {
	before := *soakFolder
	*soakFolder = t.TempDir()
	t.Cleanup(func() { *soakFolder = before })
	first := openSoak(t)
	first.note(t, "a", func(one *soaked) { one.Done, one.Killed["server"] = 7, 3 })
	again := openSoak(t)
	if again.Seed != first.Seed || again.Tests["a"].Done != 7 || again.Tests["a"].Killed["server"] != 3 || !slices.Equal(slices.Collect(maps.Keys(again.Tests)), []string{"a"}) {
		t.Errorf("%+v was read as %+v", first, again)
	}
	if err := os.WriteFile(again.path+".new", []byte("{"), 0o600); err != nil { // ended while it wrote
		t.Fatal(err)
	}
	if openSoak(t).Tests["a"].Done != 7 {
		t.Error("what was being written was read")
	}
}
