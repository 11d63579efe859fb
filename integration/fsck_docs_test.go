package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/registry"
)

// docs/OPERATIONS.md has a row for every finding of fsck, in the words of fsck, in
// their order, and none for one that there is not.
func TestOperationsListsEveryFinding(t *testing.T) {
	_, rest, ok := strings.Cut(readRepository(t, "docs/OPERATIONS.md"), "| finding | what it is | what to do | `--repair` |\n")
	if !ok {
		t.Fatal("docs/OPERATIONS.md has no table of findings")
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	lines := strings.Split(table, "\n")[1:]
	for i, c := range registry.Checks {
		repairs := ""
		if c.Repairs {
			repairs = "yes"
		}
		row := strings.TrimRight(fmt.Sprintf("| `%s` | %s | %s | %s", c.Code, c.Means, c.Do, repairs), " ") + " |"
		if i >= len(lines) || lines[i] != row {
			t.Errorf("docs/OPERATIONS.md lacks, at its place, the row\n%s", row)
		}
	}
	if len(lines) > len(registry.Checks) {
		t.Errorf("docs/OPERATIONS.md has %d rows, fsck %d kinds of findings", len(lines), len(registry.Checks))
	}
}

// Every code that fsck names is one of its kinds of findings, once; it could not tell
// of another one.
func TestEveryFindingIsAKind(t *testing.T) {
	codes := map[string]int{}
	for _, match := range regexp.MustCompile(`(?m)^\tcode\w+\s+= "([a-z-]+)"$`).FindAllStringSubmatch(readRepository(t, "registry/fsck_checks.go"), -1) {
		codes[match[1]]++
	}
	for _, c := range registry.Checks {
		codes[c.Code]--
	}
	for code, n := range codes {
		if n != 0 {
			t.Errorf("%s: %+d codes without a kind", code, n)
		}
	}
}
