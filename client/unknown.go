package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/translog"
)

// unknownTimeout bounds the look at a registry that nobody has logged in to.
const unknownTimeout = 5 * time.Second

// explainUnknown answers cargo about the registry at url, which is not known here. It is
// left to cargo's other providers, unless it is an aln-registry for which there
// is no token: those could only say that there is none, and not what to type.
func (c *Client) explainUnknown(ctx context.Context, req cargoRequest, url string) cargoAnswer {
	standAside := cargoAnswer{Err: &cargoErr{Kind: kindURLNotSupported}}
	base, err := ParseURL(url)
	if err != nil || req.Kind != "get" || c.hasToken == nil || c.hasToken(req.Registry.Name) {
		return standAside
	}
	looksLikeOurs := func(header string) bool { return strings.Contains(header, `login_url="`+base+`/me"`) }
	seen := false
	for _, header := range req.Registry.Headers {
		seen = seen || looksLikeOurs(header)
	}
	if !seen {
		return standAside
	}
	ctx, cancel := context.WithTimeout(ctx, unknownTimeout)
	defer cancel()
	note, err := c.web.of(base).checkpoint(ctx)
	if err != nil {
		return standAside
	}
	if _, err := translog.Peek(note); err != nil {
		return standAside
	}
	return refuseCargo(kindOther, fmt.Sprintf("nobody has logged in to %s on this computer; type `aln-registry login %s`", base, base))
}
