package labpage

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/page/boxpage"
	"testbox-imaging/internal/setting"
)

// accessData is what the page of users, tokens and groups shows.
type accessData struct {
	Users  []api.User
	Tokens []token
	Groups []group
}

type group struct{ api.Group }

// Limit says how many of its boxes may be at work at once.
func (g group) Limit() string {
	switch {
	case g.Most == nil:
		return "no limit"
	case *g.Most == 0:
		return "none, it is closed"
	}
	return fmt.Sprintf("at most %d", *g.Most)
}

type token struct {
	api.Token
	Over bool // it has ended
}

func (p *Pages) access(r *http.Request, v Visitor) (any, error) {
	d := &accessData{}
	var tokens []api.Token
	var groups []api.Group
	err := cmp.Or(v.Ask(r.Context(), "list-users", nil, nil, &d.Users), v.Ask(r.Context(), "list-tokens", nil, nil, &tokens),
		v.Ask(r.Context(), "list-groups", nil, nil, &groups))
	for _, g := range groups {
		d.Groups = append(d.Groups, group{g})
	}
	for _, t := range tokens {
		d.Tokens = append(d.Tokens, token{t, !t.Expires.IsZero() && !t.Expires.After(p.now())})
	}
	slices.SortStableFunc(d.Tokens, func(a, b token) int { return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Name, b.Name)) })
	return d, err
}

var roles = []string{string(ledger.Viewer), string(ledger.Operator), string(ledger.Admin)}

var accessTasks = []*task{
	{Name: "add-token", Title: "Make a token", Button: "Make the token", Back: "/access", route: "add-token", fill: fillToken,
		send:  sendToken,
		About: "Whoever has its secret is let in. The secret is shown once, after the token was made."},
	{Name: "delete-token", Title: "Delete a token", Button: "Delete the token", Danger: true, Back: "/access", route: "delete-token",
		fill: fillDeleteToken, send: sendDeleteToken, About: "Whoever uses it is not let in any more."},
	{Name: "set-user", Title: "Make or change a user", Button: "Save the user", Back: "/access", route: "set-user", fill: fillUser,
		send:  sendUser,
		About: "A token of a user may do no more than the role of the user allows."},
	{Name: "delete-user", Title: "Delete a user", Button: "Delete the user", Danger: true, Back: "/access", route: "delete-user",
		send:  sendDeleteUser,
		About: "All tokens of the user are deleted too."},
	{Name: "set-group", Title: "Make or change a group", Button: "Save the group", Back: "/access", route: "set-group", fill: fillGroup,
		send: sendGroup, About: "What is left empty below is not set for the group."},
	{Name: "delete-group", Title: "Delete a group", Button: "Delete the group", Danger: true, Back: "/access", route: "delete-group",
		send: sendDeleteGroup, About: "No box may be in it, and no token may be limited to it."},
}

func fillToken(_ context.Context, _ Visitor, f *form) error {
	f.ask(field{Name: "name", Label: "What it is for", Required: true, Max: 100})
	f.ask(field{Name: "role", Label: "Role", Options: roles, Value: roles[0]})
	f.ask(field{Name: "user", Label: "User", Max: 100, Hint: "The user must exist. Without one it is nobody's."})
	f.ask(field{Name: "group", Label: "Only for the boxes of this group", Max: 100, Hint: "Without one it is for all boxes."})
	f.ask(field{Name: "expires", Label: "Last day", Kind: "date", Hint: "Without one it does not end. The day ends in UTC."})
	return nil
}

func sendToken(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	ask := api.NewToken{Name: strings.TrimSpace(q.Get("name")), Role: q.Get("role"), User: q.Get("user"), Group: q.Get("group"),
		Why: q.Get("why")}
	if text := q.Get("expires"); text != "" {
		last, err := day(text)
		if err != nil {
			return "", nil, err
		}
		ask.Expires = last.Add(24 * time.Hour)
	}
	var t api.Token
	if err := v.Ask(ctx, "add-token", nil, ask, &t); err != nil {
		return "", nil, err
	}
	return "", &done{Title: "The token was made", Text: fmt.Sprintf("It is called %s, has the role %s and the id %s. This is its secret:",
		t.Name, t.Role, t.ID), Secret: t.Secret, To: "/access", Link: "To users and tokens"}, nil
}

func fillDeleteToken(ctx context.Context, v Visitor, f *form) error {
	var all []api.Token
	if err := v.Ask(ctx, "list-tokens", nil, nil, &all); err != nil {
		return err
	}
	for _, t := range all {
		if t.ID == f.On {
			f.say("What it is for", t.Name)
			f.say("User", t.User)
			f.say("Role", string(t.Role))
			f.say("Group", t.Group)
			return nil
		}
	}
	return refused(http.StatusNotFound, "there is no token %.80q", f.On)
}

func sendDeleteToken(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	return "/access", nil, v.Ask(ctx, "delete-token", boxpage.Params{"token": q.Get("on"), "why": q.Get("why")}, nil, nil)
}

func fillUser(ctx context.Context, v Visitor, f *form) error {
	role := roles[0]
	if f.On == "" {
		f.ask(field{Name: "name", Label: "Name", Required: true, Max: 100, Hint: "Small letters, digits, '.', '_' and '-'."})
	} else {
		var all []api.User
		if err := v.Ask(ctx, "list-users", nil, nil, &all); err != nil {
			return err
		}
		for _, u := range all {
			if u.Name == f.On {
				role = string(u.Role)
			}
		}
	}
	f.ask(field{Name: "role", Label: "Role", Options: roles, Value: role})
	return nil
}

func sendUser(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	return "/access", nil, v.Ask(ctx, "set-user", boxpage.Params{"user": cmp.Or(q.Get("on"), strings.TrimSpace(q.Get("name")))},
		api.SetUser{Role: q.Get("role"), Why: q.Get("why")}, nil)
}

func sendDeleteUser(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	return "/access", nil, v.Ask(ctx, "delete-user", boxpage.Params{"user": q.Get("on"), "why": q.Get("why")}, nil, nil)
}

func fillGroup(ctx context.Context, v Visitor, f *form) error {
	var g api.Group
	if f.On == "" {
		f.ask(field{Name: "name", Label: "Name", Required: true, Max: 100})
	} else {
		var all []api.Group
		if err := v.Ask(ctx, "list-groups", nil, nil, &all); err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(g api.Group) bool { return g.Name == f.On })
		if i < 0 {
			return refused(http.StatusNotFound, "there is no group %.80q", f.On)
		}
		g = all[i]
		f.say("Boxes", fmt.Sprint(g.Boxes))
		f.say("Its settings cannot be read", g.Unread)
	}
	most := ""
	if g.Most != nil {
		most = strconv.Itoa(*g.Most)
	}
	f.ask(field{Name: "most", Label: "At most so many of its boxes at work at once", Kind: "number", Value: most,
		Hint: "0 closes the group. Without a number there is no limit."})
	f.ask(field{Name: "power", Label: "Power command", Value: g.Power, Max: 64, Hint: "One of the server's configuration, or none."})
	f.ask(field{Name: "keep", Label: "Which backups are kept", Value: g.Keep, Max: 100, Hint: "Like last=3,daily=7, or all."})
	f.ask(field{Name: "peers", Label: "Chunks of images come from other boxes too", Value: g.Peers,
		Options: []string{"", setting.On, setting.Off}})
	return nil
}

func sendGroup(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	ask := api.SetGroup{Power: strings.TrimSpace(q.Get("power")), Keep: strings.TrimSpace(q.Get("keep")), Peers: q.Get("peers"),
		Why: q.Get("why")}
	if text := strings.TrimSpace(q.Get("most")); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return "", nil, refused(http.StatusBadRequest, "%.40q is no number of boxes", text)
		}
		ask.Most = &n
	}
	name := cmp.Or(q.Get("on"), strings.TrimSpace(q.Get("name")))
	if q.Get("on") == "" { // a group that is there would lose its settings
		var all []api.Group
		if err := v.Ask(ctx, "list-groups", nil, nil, &all); err != nil {
			return "", nil, err
		}
		if slices.ContainsFunc(all, func(g api.Group) bool { return g.Name == name }) {
			return "", nil, refused(http.StatusConflict, "there is a group %.80q already", name)
		}
	}
	return "/access", nil, v.Ask(ctx, "set-group", boxpage.Params{"group": name}, ask, nil)
}

func sendDeleteGroup(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	return "/access", nil, v.Ask(ctx, "delete-group", boxpage.Params{"group": q.Get("on"), "why": q.Get("why")}, nil, nil)
}

// auditData is what the page of the audit log shows.
type auditData struct {
	Filter auditFilter
	Entries
	Wrong         string
	Newest, Older string
}

// Entries are some of the audit log.
type Entries = api.Entries

type auditFilter struct{ Who, What, On, Since, Until, After string }

func (f auditFilter) link(after string) string {
	q := url.Values{}
	for name, value := range map[string]string{"who": f.Who, "what": f.What, "on": f.On, "since": f.Since, "until": f.Until,
		"after": after} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return "/audit?" + q.Encode()
}

// ask is the filter as the API takes it.
func (f auditFilter) ask() (boxpage.Params, error) {
	p := boxpage.Params{"who": f.Who, "what": f.What, "on": f.On, "after": f.After}
	if f.Since != "" {
		t, err := day(f.Since)
		if err != nil {
			return nil, err
		}
		p["since"] = t.Format(time.RFC3339)
	}
	if f.Until != "" {
		t, err := day(f.Until)
		if err != nil {
			return nil, err
		}
		p["until"] = t.Add(24 * time.Hour).Format(time.RFC3339) // the day itself is meant too
	}
	return p, nil
}

func (p *Pages) audit(r *http.Request, v Visitor) (any, error) {
	q := r.URL.Query()
	word := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	f := auditFilter{word("who"), word("what"), word("on"), word("since"), word("until"), q.Get("after")}
	d := &auditData{Filter: f}
	ask, err := f.ask()
	if err == nil {
		err = v.Ask(r.Context(), "list-audit", ask, nil, &d.Entries)
	}
	if said := wrongOf(err); said != "" && f != (auditFilter{}) {
		d.Wrong, err = said, nil
	}
	if f.After != "" {
		d.Newest = f.link("")
	}
	if d.Next != "" {
		d.Older = f.link(d.Next)
	}
	return d, err
}
