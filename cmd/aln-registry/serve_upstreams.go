package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/cargo"
	"phoenix-lab.org/aln-registry/server"
	"phoenix-lab.org/aln-registry/storage"
)

// upstreamFlags say from which other registries this one takes crates.
type upstreamFlags struct {
	upstreams []string
	fresh     time.Duration
	cacheMB   int64
	offline   bool
}

// Bounds of the flags.
const (
	longestFresh  = 7 * 24 * time.Hour
	mostUpstreams = 1 << 30 // MiB
)

func (f *upstreamFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVar(&f.upstreams, "upstream", nil, "where crates of other registries are taken from: `sparse+https://…`, a sparse index in the place of crates.io's own, NAME=sparse+https://…[?token_file=FILE&ca=FILE&proxy=URL] for another beside, or none; may be given again (in ALN_UPSTREAM: with spaces between)")
	flags.DurationVar(&f.fresh, "upstream-fresh", cratesioproxy.DefaultFresh, "how long what an upstream's index says is served without asking it again")
	flags.Int64Var(&f.cacheMB, "upstream-cache-mb", 0, "what crates of upstreams may take in storage, in MiB; what was not used for longest makes room (0: no bound)")
	flags.BoolVar(&f.offline, "offline", false, "ask no upstream: serve of their crates what is held, and index files pruned to that")
}

// settings reads the flags.
func (f upstreamFlags) settings() ([]cratesioproxy.Setting, error) {
	if f.fresh < 0 || f.fresh > longestFresh {
		return nil, usageError{fmt.Errorf("--upstream-fresh %s is not from 0s to %s", f.fresh, longestFresh)}
	}
	if f.cacheMB < 0 || f.cacheMB > mostUpstreams {
		return nil, usageError{fmt.Errorf("--upstream-cache-mb %d is not from 0 to %d", f.cacheMB, mostUpstreams)}
	}
	var texts []string
	for _, text := range f.upstreams {
		texts = append(texts, strings.Fields(text)...)
	}
	settings, err := cratesioproxy.ParseSettings(texts)
	if err != nil {
		return nil, usageError{fmt.Errorf("--upstream: %w", err)}
	}
	return settings, nil
}

// open begins to take crates from them for r; nil where there are none. Whoever
// is served from what it returns is so no more before it is closed, and r is closed after it.
func (f upstreamFlags) open(r *registry.Registry, inventory storage.Inventory, settings []cratesioproxy.Setting, log *slog.Logger) (*upstreams, error) {
	if len(settings) == 0 {
		return nil, nil
	}
	proxy, err := cratesioproxy.New(cratesioproxy.Config{
		Evidence: upstreamEvidence{r}, Facts: upstreamFacts{r.Catalog, r}, Blobs: r.Blobs,
		Version: version, PublicURL: r.PublicURL, Spool: r.Spool, SpoolBytes: crateSpool(r.Spool), Offline: f.offline,
		Fresh: cmp.Or(f.fresh, time.Nanosecond), Alarmed: func(a cratesioproxy.Alarm) { r.Note(eventOf(a)) }, Clock: r.Clock, Log: log,
	}, settings)
	if errors.Is(err, cratesioproxy.ErrSetting) {
		return nil, usageError{fmt.Errorf("--upstream: %w", err)}
	}
	if err != nil {
		return nil, err
	}
	received := func() int64 { return proxy.Figures().Crates }
	return &upstreams{
		proxy: proxy, catalog: r.Catalog, blobs: r.Blobs, clock: r.Clock,
		cache: newUpstreamCache(r, inventory, f.cacheMB<<20, received, log),
	}, nil
}

// crateSpool is what crates under way may take of a folder: half of what is free, but no
// less than one may need and no more than usual.
func crateSpool(folder string) int64 {
	half := spoolBytes(folder)
	if half == 0 {
		return cratesioproxy.DefaultSpoolBytes
	}
	return min(max(half, cratesioproxy.DefaultCrateBytes), cratesioproxy.DefaultSpoolBytes)
}

// Close implements io.Closer. What is under way ends.
func (u *upstreams) Close() error {
	if u == nil {
		return nil
	}
	err := u.cache.Close()
	u.proxy.Close()
	return err
}

// served is what the server takes: nothing is nil there.
func (u *upstreams) served() server.Upstreams {
	if u == nil {
		return nil
	}
	return u
}

// eventOf is an alarm for the audit trail.
func eventOf(a cratesioproxy.Alarm) registry.Event {
	what := "upstream/" + a.Upstream + "/" + a.Name
	if a.Version != "" {
		what += "@" + a.Version
	}
	return registry.Event{What: what, Rule: registry.RuleUpstreamAlarm, RuleID: a.Kind, Outcome: registry.OutcomeRefused}
}

// lookout tells which upstreams have a crate, once it is given them.
type lookout struct{ at atomic.Pointer[upstreams] }

// known implements registry.Config's KnownUpstream. A crate may be spelled otherwise there.
func (l *lookout) known(ctx context.Context, name string) (names []string) {
	u := l.at.Load()
	if u == nil {
		return nil
	}
	for _, one := range u.proxy.Upstreams() {
		for _, spelled := range spellings(name) {
			if one.Refresh(ctx, spelled) == nil {
				names = append(names, one.Name())
				break
			}
		}
	}
	return names
}

// spellings are the usual ones of a crate's name, in lower case.
func spellings(name string) []string {
	lower := strings.ToLower(name)
	all := []string{lower, cargo.CanonicalName(name), strings.ReplaceAll(lower, "_", "-")}
	slices.Sort(all)
	return slices.Compact(all)
}
