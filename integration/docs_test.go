package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func readRepository(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The vectors that docs/FORMATS.md prints are those that the tests check.
func TestFormatsQuotesTheTestVectors(t *testing.T) {
	formats := readRepository(t, "docs/FORMATS.md")
	for _, file := range []string{"registry/record/testdata/vectors.txt", "registry/translog/testdata/checkpoint.golden"} {
		for _, line := range strings.Split(readRepository(t, file), "\n") {
			if !strings.Contains(formats, strings.TrimSpace(line)) {
				t.Errorf("docs/FORMATS.md lacks the line of %s:\n%s", file, line)
			}
		}
	}
}

// What the documents refer to is there.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	reference := regexp.MustCompile("`((?:cmd|client|cratesio-proxy|server|web|registry|did|durable|storage|migrations|integration|docs|deploy|model)/[A-Za-z0-9_./-]*[A-Za-z0-9_])`")
	for _, document := range []string{"README.md", "docs/ARCHITECTURE.md", "docs/FORMATS.md", "docs/SECURITY.md", "docs/USING.md", "docs/OPERATIONS.md", "docs/SOAK.md", "docs/PERFORMANCE.md", "docs/MODEL.md", "migrations/README.md"} {
		for _, match := range reference.FindAllStringSubmatch(readRepository(t, document), -1) {
			if _, err := os.Stat(filepath.Join("..", match[1])); err != nil {
				t.Errorf("%s names %s, which is not there", document, match[1])
			}
		}
	}
}

// docs/OPERATIONS.md has a row for every kind of alarm, and for no other.
func TestTheGuideNamesEveryKindOfAlarm(t *testing.T) {
	kinds := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^\tAlarm[A-Z][a-z]+ = "([a-z]+)"$`).FindAllStringSubmatch(readRepository(t, "cratesio-proxy/needs.go"), -1) {
		kinds[match[1]] = true
	}
	if len(kinds) == 0 {
		t.Fatal("no kind of alarm was found")
	}
	_, guide, _ := strings.Cut(readRepository(t, "docs/OPERATIONS.md"), "### Alarms of upstreams\n")
	guide, _, _ = strings.Cut(guide, "\n### ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(guide, -1) {
		if !kinds[row[1]] {
			t.Errorf("docs/OPERATIONS.md has a row for alarms of the kind %s, which there is not", row[1])
		}
		delete(kinds, row[1])
	}
	for kind := range kinds {
		t.Errorf("docs/OPERATIONS.md lacks a row for alarms of the kind %s", kind)
	}
}

// The README's commands are targets of the Makefile, and make help lists every one.
func TestReadmeCommandsExist(t *testing.T) {
	makefile := readRepository(t, "Makefile")
	for _, match := range regexp.MustCompile("(?m)make ([a-z]+)").FindAllStringSubmatch(readRepository(t, "README.md"), -1) {
		if !strings.Contains(makefile, "\n"+match[1]+":") {
			t.Errorf("README.md says make %s, which the Makefile has not", match[1])
		}
	}
	for _, target := range []string{"help", "run", "build", "test", "quick", "lint", "fuzz", "bench", "soak", "model"} {
		if !regexp.MustCompile(`(?m)^` + target + `:.*## `).MatchString(makefile) {
			t.Errorf("make help does not list %s", target)
		}
	}
}
