package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// leaves are the commands below c that do something.
func leaves(c *cobra.Command) []*cobra.Command {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	var all []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.Name() != "help" {
			all = append(all, leaves(sub)...)
		}
	}
	return all
}

// The reference in docs/USING.md has a row for every command, as the command's own
// help tells it, and none for one that there is not.
func TestTheReferenceHasEveryCommand(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "USING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, reference, ok := strings.Cut(string(raw), "## All commands")
	if !ok {
		t.Fatal("docs/USING.md has no reference of the commands")
	}
	rows := map[string]bool{}
	for _, line := range strings.Split(reference, "\n") {
		if strings.HasPrefix(line, "| `") {
			rows[line] = true
		}
	}
	for _, c := range leaves((&app{}).root()) {
		path, _, _ := strings.Cut(c.UseLine(), " [flags]")
		row := "| `" + strings.ReplaceAll(strings.TrimPrefix(path, "aln-registry "), "|", `\|`) + "` | " + c.Short + " |"
		if !rows[row] {
			t.Errorf("docs/USING.md lacks the row\n%s", row)
		}
		delete(rows, row)
	}
	for row := range rows {
		t.Errorf("docs/USING.md has a row of no command:\n%s", row)
	}
}
