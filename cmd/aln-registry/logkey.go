package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"phoenix-lab.org/aln-registry/durable"
	"phoenix-lab.org/aln-registry/registry"
)

func (a *app) newLogKeyCommand() *cobra.Command {
	var data, key string
	c := &cobra.Command{
		Use: "new-key", Short: "Make a key that is to sign the log, in the registry's key file (operators)", Args: cobra.NoArgs,
		Long: "Make a log key in the registry's key file, beside those that are there. It signs nothing yet: restart the\nserver, so that it holds the key (of several servers every one, with this file), then an admin puts it in force with `settings set --log-key`. Checkpoints\nare signed with the old key too for 30 days, so that clients find the way from one to the other.",
		RunE: func(*cobra.Command, []string) error { return a.newLogKey(data, key) },
	}
	c.Flags().StringVar(&data, "data", defaultDataName, "the registry's data folder")
	c.Flags().StringVar(&key, "key", "", "the registry's key `FILE`, where it is not in the data folder")
	return c
}

// newLogKey may run beside the server, which reads the key file at its start.
func (a *app) newLogKey(data, path string) error {
	if err := checkKeyPath(path); err != nil {
		return err
	}
	next := "restart the server"
	if path == "" {
		var err error
		if path, err = existingKeyFile(data); err != nil {
			return err
		}
	} else {
		next = "give this file to every server, and restart them"
		if _, err := os.Stat(path); err != nil { // before a lock is made beside nothing
			return fmt.Errorf("--key: %w", err)
		}
	}
	lock, err := durable.Lock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("another command is changing %s; try again when it is done", path)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	multikey, err := registry.AddLogKey(path, rand.Reader)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			LogKey  string `json:"log_key"`
			KeyFile string `json:"key_file"`
		}{multikey, path})
	}
	fmt.Fprintf(a.out, "made the log key %s in %s; back the file up\n", multikey, path)
	fmt.Fprintf(a.out, "Next: %s, then an admin types  %s settings set --log-key %s\n", next, programName(), multikey)
	return nil
}
