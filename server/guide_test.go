package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var describedName = regexp.MustCompile(`fqName: "([a-z_]+)"`)

// docs/OPERATIONS.md has a row for every figure of ours, and for no other.
func TestTheGuideNamesEveryFigure(t *testing.T) {
	l := newLab(t)
	certificate, _ := newCertificate(t, "localhost", time.Hour)
	metrics := NewMetrics(MetricsConfig{Certificate: certificate, Room: func() (uint64, uint64, error) { return 1, 1, nil }})
	New(Config{Registry: l.registry, Log: l.registry.Log, Clock: l.now, Metrics: metrics})
	described := make(chan *prometheus.Desc)
	go func() { metrics.gatherer.Describe(described); close(described) }()
	ours := map[string]bool{}
	for d := range described {
		if name := describedName.FindStringSubmatch(d.String())[1]; !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			ours[name] = true
		}
	}
	guide := must(os.ReadFile(filepath.Join("..", "docs", "OPERATIONS.md")))
	for _, name := range regexp.MustCompile(`(?m)^ +expr: .*$`).FindAllString(string(guide), -1) { // the rules for alerts ask for what is there
		for _, series := range regexp.MustCompile(`\b(?:aln|session)_[a-z_]+`).FindAllString(name, -1) {
			if family := strings.TrimSuffix(strings.TrimSuffix(series, "_bucket"), "_count"); !ours[family] {
				t.Errorf("docs/OPERATIONS.md alerts on %s, which is not there", series)
			}
		}
	}
	_, figures, _ := strings.Cut(string(guide), "\n## Metrics\n") // other tables name findings and files
	figures, _, _ = strings.Cut(figures, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)[`{]").FindAllStringSubmatch(figures, -1) {
		if !ours[row[1]] {
			t.Errorf("docs/OPERATIONS.md has a row for %s, which is not there", row[1])
		}
		delete(ours, row[1])
	}
	for name := range ours {
		t.Errorf("docs/OPERATIONS.md lacks a row for %s", name)
	}
	l.get("/healthz", "").want(t, 200)
}
