package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	cratesioproxy "phoenix-lab.org/aln-registry/cratesio-proxy"
	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/storage"
)

// upstreamFlags say what other registries this one takes crates from.
type upstreamFlags struct {
	urls    []string
	fresh   time.Duration
	cacheMB int64
	offline bool
}

// mostCacheMB is 1 PiB.
const mostCacheMB = 1 << 30

func (f *upstreamFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVar(&f.urls, "upstream", nil, "`URL` of another registry to take crates from, as in NAME=sparse+https://host/index/?token_file=FILE&token_host=HOST&ca=FILE&proxy=URL (repeatable; in the environment: separated by spaces); without a name where crates.io's index is, \"none\" for no crates.io")
	flags.Lookup("upstream").DefValue = "sparse+https://index.crates.io/" // what none given means
	flags.DurationVar(&f.fresh, "upstream-fresh", cratesioproxy.DefaultFresh, "how long an index file of another registry is served before that is asked again")
	flags.Int64Var(&f.cacheMB, "upstream-cache-mb", 0, "disk for crates of other registries, in MiB; what was not used for longest makes room, save what is pinned or a grant lists (0: no bound, as with --offline)")
	flags.BoolVar(&f.offline, "offline", false, "ask no other registry for anything, and list of theirs what is held")
}

// settings are those of all upstreams; the error is of the command line.
func (f upstreamFlags) settings() ([]cratesioproxy.Setting, error) {
	switch {
	case f.fresh < 0:
		return nil, usageError{fmt.Errorf("--upstream-fresh %s is negative", f.fresh)}
	case f.cacheMB < 0 || f.cacheMB > mostCacheMB:
		return nil, usageError{fmt.Errorf("--upstream-cache-mb %d is not from 0 to %d", f.cacheMB, mostCacheMB)}
	}
	var texts []string
	for _, url := range f.urls {
		for _, word := range strings.Fields(url) {
			if word != "none" && !strings.ContainsAny(word, "=:/") {
				return nil, usageError{errors.New("--upstream: a word of it is neither an upstream nor none; write NAME=sparse+https://host/index/, with a name of a-z, 0-9 and - that has no space in it: spaces stand between upstreams")}
			}
			texts = append(texts, word)
		}
	}
	settings, err := cratesioproxy.ParseSettings(texts)
	if err != nil {
		return nil, usageError{fmt.Errorf("--upstream: %w", err)}
	}
	return settings, nil
}

// open makes what talks to the upstreams for r, whose blobs are in inventory, until stopping
// is closed. Nothing is asked of any before somebody asks for it.
func (f upstreamFlags) open(r *registry.Registry, inventory storage.Inventory, stopping <-chan struct{}) (*upstreams, error) {
	settings, err := f.settings()
	if err != nil {
		return nil, err
	}
	u := &upstreams{registry: r, offline: f.offline, limit: f.limit(), log: r.Log, stored: make(chan struct{}, 1), ended: make(chan struct{})}
	u.proxy, err = cratesioproxy.New(cratesioproxy.Config{
		Evidence: evidence{r}, Blobs: r.Blobs, Facts: facts{r, u.look}, Version: version, PublicURL: r.PublicURL, Spool: r.Spool,
		Offline: f.offline, Fresh: max(f.fresh, 1), Stopping: stopping, Alarmed: u.alarmed, Clock: time.Now, Log: r.Log,
	}, settings)
	if errors.Is(err, cratesioproxy.ErrSetting) {
		return nil, usageError{fmt.Errorf("--upstream: %w", err)}
	}
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	u.stop, u.evictor = stop, r.NewEvictor(inventory)
	go u.measure(ctx)
	return u, nil
}

// limit is how many bytes may be held, 0 for no bound: offline nothing makes room, since it
// could not be fetched again.
func (f upstreamFlags) limit() int64 {
	if f.offline {
		return 0
	}
	return f.cacheMB << 20
}

const (
	// measureEvery is how often it is looked how much is held, and room made.
	measureEvery = 20 * time.Second
	// measureRest is how soon again, while crates come and there is a bound.
	measureRest = time.Second
	// measureUnbound is how often where there is no bound, for the figures.
	measureUnbound = 5 * time.Minute
	// crampedFor is how long it is not looked for what may go after none was found, unless
	// more comes to be held.
	crampedFor = 5 * time.Minute
)

// upstreams are the other registries that a server takes crates from.
type upstreams struct {
	registry *registry.Registry
	proxy    *cratesioproxy.Proxy
	evictor  *registry.Evictor
	offline  bool
	// limit is in bytes, 0 for none.
	limit int64
	log   *slog.Logger

	held, evicted atomic.Int64
	cramped       cramped
	// stored says that crates have come to be held.
	stored chan struct{}
	stop   func()
	ended  chan struct{}
}

// close ends what is under way.
func (u *upstreams) close() {
	u.stop()
	u.proxy.Close()
	<-u.ended
	if err := u.evictor.Close(); err != nil {
		u.log.Error("what was known for making room cannot be given up", "error", err)
	}
}

// measure looks from time to time how much is held, and makes room where that is too much.
func (u *upstreams) measure(ctx context.Context) {
	defer close(u.ended)
	every := measureEvery
	if u.limit == 0 {
		every = measureUnbound
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := u.makeRoom(ctx); err != nil && ctx.Err() == nil {
			u.log.Error("no room can be made for crates of other registries; it is tried again", "error", err)
		}
		rest := time.NewTimer(measureRest)
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-u.stored:
		}
	}
}

// look has it looked soon how much is held.
func (u *upstreams) look() {
	if u.limit == 0 {
		return
	}
	select {
	case u.stored <- struct{}{}:
	default: // it is about to be
	}
}

func (u *upstreams) makeRoom(ctx context.Context) error {
	if u.limit == 0 || u.cramped.since(time.Now()) {
		sum, err := u.registry.Catalog.UpstreamHeldBytes(ctx)
		if err != nil {
			return err
		}
		u.held.Store(sum)
		if u.limit == 0 || u.cramped.still(sum) {
			return nil
		}
	}
	done, err := u.evictor.MakeRoom(ctx, u.limit)
	u.evicted.Add(done.Removed)
	u.cramped = cramped{}
	if left := done.Held - done.RemovedBytes; err == nil && left > u.limit {
		u.cramped = cramped{left, time.Now().Add(crampedFor)}
	}
	if err == nil || done.Removed > 0 {
		u.held.Store(done.Held - done.RemovedBytes)
	}
	return err
}

// cramped is that no more may go of what is held: everything that is held would be looked
// through in vain, again and again.
type cramped struct {
	held  int64 // then, in bytes
	until time.Time
}

func (c cramped) since(now time.Time) bool { return now.Before(c.until) }

// still reports whether no more is held by now.
func (c cramped) still(held int64) bool { return held <= c.held }

// alarmed enters an alarm into the audit trail.
func (u *upstreams) alarmed(a cratesioproxy.Alarm) {
	what := registry.WhatAlarmed(a.Upstream, a.Name, a.Version)
	u.registry.Note(registry.Event{What: what, Rule: registry.RuleUpstreamAlarm, RuleID: a.Kind, Outcome: registry.OutcomeRefused})
}
