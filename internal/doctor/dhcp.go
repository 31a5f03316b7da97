package doctor

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/dhcp"
)

// DHCP asks by listen which DHCP servers there are, and judges what they tell. port67 says which
// program of this machine has the port of DHCP servers.
func DHCP(ctx context.Context, listen func(context.Context) ([]dhcp.Found, error), want dhcp.Want, port67 func() string) []Finding {
	found, err := listen(ctx)
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return []Finding{notLooked("dhcp", "only root may ask by DHCP: sudo testbox doctor")}
	case errors.Is(err, unix.EADDRINUSE) && want.Who != dhcp.Others:
		return nil // our server has it, or says why not. Status has what it heard
	case errors.Is(err, unix.EADDRINUSE):
		return []Finding{notLooked("dhcp", "port 67 of this machine is in use by %s. "+
			"Ask from another machine of the boxes' network. What ours hears, `testbox server status` says", port67())}
	case err != nil:
		return []Finding{notLooked("dhcp", "%v", err)}
	}
	return Offers(found, want)
}

// Offers judges what DHCP servers offer.
func Offers(found []dhcp.Found, want dhcp.Want) (all []Finding) {
	for _, f := range dhcp.Judge(found, want) {
		all = append(all, fault(f.Check, f.Sure, f.Text, f.Do))
	}
	if len(all) == 0 {
		all = append(all, fine("dhcp", "one DHCP server answers on each network card that has one, and names the right files"))
	}
	return all
}

func fault(check string, sure bool, text, do string) Finding {
	if sure {
		return problem(check, do, "%s", text)
	}
	return warning(check, do, "%s", text)
}
