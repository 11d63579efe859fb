package integration

import (
	"fmt"
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
