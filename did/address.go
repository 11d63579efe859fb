package did

import (
	"fmt"
	"net/netip"
)

// special are the address blocks that belong to nobody on the public Internet,
// or lead elsewhere than they say: the IANA special-purpose registries (RFC 6890
// and its updates), multicast, and the transition mechanisms that carry an IPv4
// address inside. Of IPv6 only 2000::/3 is given out at all, so that what lies
// outside (loopback, unique local, link-local, NAT64, IPv4-compatible, multicast)
// needs no line here.
var special = prefixes(
	"0.0.0.0/8",       // this network, unspecified
	"10.0.0.0/8",      // private (RFC 1918)
	"100.64.0.0/10",   // shared by carrier-grade NAT (RFC 6598)
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, clouds' metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.31.196.0/24", // AS112
	"192.52.193.0/24", // AMT
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"192.175.48.0/24", // AS112
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, broadcast
	"2001::/23",       // protocol assignments: Teredo, ORCHID, benchmarks
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4
	"2620:4f:8000::/48",
	"3fff::/20", // documentation
)

var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(list))
	for i, text := range list {
		parsed[i] = netip.MustParsePrefix(text)
	}
	return parsed
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// checkAddress refuses every address but those of the public Internet and those
// in allowed (ErrAddress). An IPv4 address in IPv6's clothes is judged as what it is.
func checkAddress(a netip.Addr, allowed []netip.Prefix) error {
	plain := a.Unmap()
	switch {
	case plain.Zone() == "" && within(allowed, plain) && !plain.IsMulticast() && !plain.IsUnspecified():
		return nil
	case !plain.IsValid(), plain.Zone() != "", within(special, plain), plain.Is6() && !globalUnicast.Contains(plain):
		return fmt.Errorf("%w: %s", ErrAddress, a)
	}
	return nil
}
