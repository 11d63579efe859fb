package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/storage"
)

// Charter fetches the grant by which a build of ours is judged, and all that it
// names: the bytes are held against their CIDs and must parse. What is wrong with
// the grant itself is told as findings, and ok is false; Without says that there is none in
// force, which is no finding for who reads without one. The error is of a registry that cannot be asked.
func (r *Registry) Charter(ctx context.Context) (c Charter, all []Finding, ok bool, err error) {
	g, err := r.OwnGrant(ctx)
	const mend = "ask a grantor: aln-registry grant new --subject "
	switch {
	case errors.Is(err, ErrNoGrant):
		c.Without = true
		return c, []Finding{found(ClauseGrant, mend+string(r.identity.DID())+" --from-lockfile Cargo.lock", "%v", err)}, false, nil
	case errors.Is(err, ErrSeveralGrants), errors.Is(err, ErrUnknownGrant):
		return c, []Finding{found(ClauseGrant, "name one of `aln-registry grant list --in-force` with --grant or ALN_GRANT", "%v", err)}, false, nil
	case err != nil:
		return c, nil, false, err
	}
	c = Charter{CID: g.CID, Env: g.Env, Listed: map[[32]byte]bool{}}
	if finding, bad := r.notOurs(g); bad {
		return c, []Finding{finding}, false, nil
	}
	now, err := r.Time()
	if err != nil {
		return c, nil, false, err
	}
	// The registry's clock may show that ours is slow, and never that a grant lives
	// longer: whoever answers could make it late.
	if ours := r.web.now(); ours.After(now) && !ours.Before(c.Env.Expires.Time) {
		now = ours
	}
	if all = c.checkTime(now); len(all) > 0 {
		return c, all, false, nil
	}
	finding, bad, err := r.prove(ctx, g)
	if err != nil {
		return c, nil, false, err
	}
	if bad {
		return c, []Finding{finding}, false, nil
	}
	all, err = r.fillCharter(ctx, &c)
	return c, all, err == nil, err
}

// notOurs says why g lets us build nothing, apart from its time.
func (r *Registry) notOurs(g Grant) (Finding, bool) {
	me := r.identity.DID()
	mend := "ask a grantor for another: aln-registry grant new --subject " + string(me) + " --from-lockfile Cargo.lock"
	now, err := r.Time()
	inTime := err == nil && !now.Before(g.Env.NotBefore.Time) && now.Before(g.Env.Expires.Time)
	switch {
	case g.Env.Subject != me:
		return found(ClauseGrant, "name one of your own: `aln-registry grant list --subject "+string(me)+"`", "the grant %s is for %s, and you are %s", g.CID, g.Env.Subject, me), true
	case g.Revoked:
		return found(ClauseGrant, mend, "the grant %s was revoked", g.CID), true
	case !g.InForce && inTime: // what the time says is told by itself
		return found(ClauseGrant, mend, "the grant %s is not in force: %s", g.CID, g.Why), true
	}
	return Finding{}, false
}

// fillCharter fetches the list, the memory pool and the execution domain.
func (r *Registry) fillCharter(ctx context.Context, c *Charter) (all []Finding, err error) {
	hashes, everything, err := r.ListOf(ctx, c.Env)
	if err != nil {
		if !isShardProblem(err) {
			return nil, err
		}
		all = append(all, found(ClauseShards, askIssuer(c.Env), "the grant's list of crates is not to be had, so that it allows none: %v", err))
	}
	c.All = everything
	for _, h := range hashes {
		c.Listed[h] = true
	}
	shards := []struct {
		id   *storage.CID
		what string
		read func(raw []byte) error
	}{
		{c.Env.MemoryPool, "MemoryPoolShard", func(raw []byte) error {
			pool, err := particle.ParseMemoryPoolShard(raw)
			if err == nil {
				c.Pool = &pool
			}
			return err
		}},
		{c.Env.ExecutionDomain, "ExecutionDomain", func(raw []byte) error {
			_, err := particle.ParseExecutionDomain(raw)
			return err
		}},
	}
	for _, s := range shards {
		if s.id == nil {
			continue
		}
		raw, err := r.Shard(ctx, *s.id, particle.MaxBytes)
		if err == nil {
			err = s.read(raw)
		}
		if err != nil && !isShardProblem(err) {
			return nil, err
		}
		if err != nil {
			all = append(all, found(ClauseShards, askIssuer(c.Env), "the %s %s that the grant names is missing: %v", s.what, s.id, err))
		}
	}
	return all, nil
}

func askIssuer(g particle.EnvGrant) string {
	return "ask the issuer " + string(g.Issuer) + " to publish it, or for another grant"
}

// isShardProblem reports whether err is of a shard that is not there, is not what
// it should be, or may not be had, and not of a registry that does not answer.
func isShardProblem(err error) bool {
	var refused *APIError
	return errors.Is(err, ErrNoShard) || errors.Is(err, particle.ErrMalformed) || errors.Is(err, ErrAnswer) ||
		errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500
}

// Bases are the URLs by which a lock may name the registry's indexes.
func (r *Registry) Bases() ([]string, error) {
	bases := []string{r.pin.URL}
	names, err := r.client.home.OtherNames(r.pin)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if base, err := ParseURL(name); err == nil {
			bases = append(bases, base)
		}
	}
	return bases, nil
}

// Place puts a lock's packages in their places. Where cargo's configuration puts
// this registry's proxy in the place of crates.io, that is no override but the way
// that is meant, and is taken out of overrides.
func (r *Registry) Place(packages []Locked, overrides []Override) ([]Override, error) {
	bases, err := r.Bases()
	if err != nil {
		return nil, err
	}
	var left []Override
	proxied := Place{}
	for _, o := range overrides {
		if to := PlaceOf(o.To, bases); o.Kind == OverrideSource && o.What == "crates-io" && to.Kind == PlaceProxied {
			proxied = to
			continue
		}
		left = append(left, o)
	}
	for i := range packages {
		packages[i].Place = PlaceOf(packages[i].Source, bases)
		if packages[i].Place.Kind == PlaceCratesIO && proxied.Kind != "" {
			packages[i].Place = proxied
		}
	}
	return left, nil
}

// Endpoints lists the hosts that cargo asks for packages: those of their indexes,
// and those that the indexes' config.json send it to for the bytes.
func (r *Registry) Endpoints(ctx context.Context, packages []Locked) ([]Endpoint, error) {
	var all []Endpoint
	seen := map[string]bool{}
	for _, p := range packages {
		key := p.Place.Base
		if key == "" {
			key = p.Source
		}
		if p.Place.Kind == PlaceProject || seen[key] {
			continue
		}
		seen[key] = true
		switch {
		case p.Place.Kind == PlaceCratesIO:
			all = append(all, cratesIOEndpoints()...)
		case p.Place.Base == "":
			if e, ok := EndpointOf(p.Source, "the source of "+p.Name); ok {
				all = append(all, e)
			}
		default:
			ends, err := r.indexEndpoints(ctx, p.Place)
			if err != nil {
				return nil, err
			}
			all = append(all, ends...)
		}
	}
	return all, nil
}

// indexEndpoints are the hosts of an index of this registry and of its downloads.
func (r *Registry) indexEndpoints(ctx context.Context, place Place) ([]Endpoint, error) {
	bases, err := r.Bases()
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(bases, func(base string) bool { return strings.HasPrefix(place.Base, base+"/") })
	index, ok := EndpointOf("sparse+"+place.Base, "the index "+place.Base+"/")
	if at < 0 || !ok {
		return nil, fmt.Errorf("%w: %s", ErrURL, place.Base)
	}
	data, _, err := r.read(ctx, strings.TrimPrefix(place.Base, bases[at])+"/config.json", maxAnswer)
	if upstream := place.UpstreamOf(); upstream != "" && statusOf(err) == http.StatusNotFound {
		mend := ""
		if upstream == particle.SourceCratesIO {
			mend = "; `aln-registry login " + bases[at] + " --restore-crates-io` has this project take them from crates.io itself"
		}
		return nil, fmt.Errorf("crates of %s are to come through this registry, which does not take them: %w%s", upstream, err, mend)
	}
	if err != nil {
		return nil, err
	}
	var config struct {
		DL string `json:"dl"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("%w: config.json of %s: %w", ErrAnswer, place.Base, err)
	}
	downloads, ok := EndpointOf(config.DL, "downloads of "+place.Base+"/")
	if !ok {
		return nil, fmt.Errorf("%w: config.json of %s names no place for downloads", ErrAnswer, place.Base)
	}
	return []Endpoint{index, downloads}, nil
}
