package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says what this program was built from.
type build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	// Commit is the revision of the source, "" where it was not built in a
	// checkout; Modified, that the checkout had changes beside it.
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, and what it was built from and with", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if a.json {
				return a.printJSON(b)
			}
			fmt.Fprintln(a.out, "aln-registry "+b.Version)
			rows := [][]string{{"  go", b.Go + " " + b.OS + "/" + b.Arch}}
			if b.Commit != "" {
				commit := b.Commit
				if b.Modified {
					commit += ", modified"
				}
				rows = append(rows, []string{"  commit", commit})
			}
			a.table(rows)
			return nil
		},
	}
}
