package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"phoenix-lab.org/aln-registry/client"
	"phoenix-lab.org/aln-registry/did"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/record"
)

// standing is under what somebody reads at a registry.
type standing struct {
	// Grant is the EnvGrant that decides, "" for none; Expires is its end.
	Grant   string `json:"grant"`
	Expires string `json:"expires"`
	// Says tells it to people; Problem what is wrong, "" for nothing, and Mend what to do.
	Says    string `json:"says"`
	Problem string `json:"problem"`
	Mend    string `json:"mend"`
}

// standingAt finds out under what r's identity reads. The error is of a registry
// that cannot be asked, or knows of no grants.
func standingAt(ctx context.Context, r *client.Registry) (standing, error) {
	identity, ok := r.Identity()
	if !ok {
		return standing{}, client.ErrNoIdentity
	}
	mine := "`aln-registry grant list --in-force --subject " + string(identity.DID()) + "`"
	g, err := r.OwnGrant(ctx)
	switch {
	case errors.Is(err, client.ErrNoGrant):
		return withoutGrant(ctx, r, identity)
	case errors.Is(err, client.ErrSeveralGrants), errors.Is(err, client.ErrUnknownGrant):
		return standing{Problem: err.Error(), Mend: "set ALN_GRANT to one of " + mine}, nil
	case err != nil:
		return standing{}, err
	}
	s := standing{Grant: g.CID.String(), Expires: g.Expires.String()}
	switch {
	case g.Subject != identity.DID():
		s.Problem = fmt.Sprintf("the grant %s is for %s, not for you", g.CID, g.Subject)
	case g.Revoked:
		s.Problem = fmt.Sprintf("the grant %s was revoked", g.CID)
	case !g.InForce:
		s.Problem = fmt.Sprintf("the grant %s is not in force: %s", g.CID, g.Why)
	default:
		s.Says = fmt.Sprintf("under the grant %s of %s, until %s", g.CID, g.Issuer, g.Expires)
		return s, nil
	}
	s.Mend = "set ALN_GRANT to one of " + mine + ", or ask a grantor for another"
	return s, nil
}

// withoutGrant is what the settings say of a host's tier.
func withoutGrant(ctx context.Context, r *client.Registry, identity client.Identity) (standing, error) {
	tier, reads, err := readsWithoutGrant(ctx, r, identity.DID())
	switch {
	case err != nil:
		return standing{}, err
	case !reads:
		return standing{
			Problem: "no grant is in force for you, and hosts of the tier " + tier + " read nothing without one",
			Mend:    "ask a grantor: aln-registry grant new --subject " + string(identity.DID()) + " --from-lockfile Cargo.lock",
		}, nil
	}
	return standing{Says: "without a grant, as hosts of the tier " + tier + " may"}, nil
}

// readsWithoutGrant is the tier of a host, that of guests for who is no member,
// and whether hosts of it read without a grant.
func readsWithoutGrant(ctx context.Context, r *client.Registry, host did.DID) (tier string, reads bool, err error) {
	members, err := r.Members(ctx)
	if err != nil {
		return "", false, err
	}
	in, err := r.Settings(ctx)
	if err != nil {
		return "", false, err
	}
	tier = particle.TierGuest
	if i := slices.IndexFunc(members, func(m client.Member) bool { return m.DID == host }); i >= 0 {
		tier = members[i].Tier
	}
	t := in.Settings.TierDefault
	access := map[string]record.TierAccess{
		particle.TierCoreStakeholder: t.CoreStakeholder, particle.TierCollaborator: t.Collaborator, particle.TierGuest: t.Guest,
	}[tier]
	return tier, access == record.Allow, nil
}

// grantNotes say what a change of a host's grants, or of its tier, leaves it with
// where that may surprise: nothing to read, less than before, or everything. granted
// is a grant just made, nil for none. They are of what is entered already, and left out where the registry does not say.
func grantNotes(ctx context.Context, r *client.Registry, host did.DID, granted *newGrantJSON) []string {
	mine, err := r.Grants(ctx, host, true)
	if err != nil {
		return nil
	}
	tier, reads, err := readsWithoutGrant(ctx, r, host)
	switch {
	case err != nil:
		return nil
	case granted != nil && len(mine) > 1:
		var others []string
		for _, g := range mine {
			if g.CID != granted.CID {
				others = append(others, g.CID.String())
			}
		}
		return []string{fmt.Sprintf("%s has %d grants in force now, and has to name one: ALN_GRANT=%s; or it has that alone once a grantor types `aln-registry grant revoke` with %s", host, len(mine), granted.CID, strings.Join(others, ", "))}
	case granted != nil && reads && len(mine) == 1 && granted.Grant.Supersedes == nil:
		return []string{fmt.Sprintf("%s read everything before, as hosts of the tier %s do without a grant; from now on it reads what this one allows", host, tier)}
	case len(mine) > 0:
		return nil
	case reads:
		return []string{fmt.Sprintf("%s has no grant in force now, and reads everything, as hosts of the tier %s do without one (settings set --tier-default, member add --tier, member remove)", host, tier)}
	}
	return []string{fmt.Sprintf("hosts of the tier %s read nothing without a grant; a grantor gives one:  aln-registry grant new --subject %s --from-lockfile Cargo.lock", tier, host)}
}

// besideNotes warn of the grants in force that another, not yet entered, would stand beside.
func besideNotes(ctx context.Context, r *client.Registry, host did.DID) []string {
	mine, err := r.Grants(ctx, host, true)
	if err != nil {
		return nil
	}
	var notes []string
	for _, g := range mine {
		notes = append(notes, fmt.Sprintf("the grant %s of %s is in force already, and the host would have to name one of the two: --supersedes %s has this one take its place", g.CID, host, g.CID))
	}
	return notes
}

// noGrantsThere reports whether err is of a registry that does not know of grants yet.
func noGrantsThere(err error) bool {
	var refused *client.APIError
	return errors.As(err, &refused) && refused.Status == http.StatusNotFound
}

// checkGrant says under which grant one reads.
func (d *doctor) checkGrant(ctx context.Context, r *client.Registry) {
	check := "grant at " + r.Pin().URL
	s, err := standingAt(ctx, r)
	switch {
	case noGrantsThere(err):
	case err != nil:
		d.fail(check, "", "%v", err)
	case s.Problem != "":
		d.fail(check, s.Mend, "%s", s.Problem)
	default:
		d.ok(check, "you read %s", s.Says)
	}
}
