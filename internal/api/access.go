package api

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// userForm keeps names of users apart from "token NAME" and "uid NUMBER", which the
// audit log has too.
var userForm = regexp.MustCompile(`^[a-z_][a-z0-9._-]*$`)

func (s *Server) listUsers(ctx context.Context, _ *struct{}) (*body[[]User], error) {
	out := []User{}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		all, err := tx.Users()
		for _, u := range all {
			out = append(out, User{u.Name, u.Role})
		}
		return err
	})
	return answer(out, err)
}

type UserPath struct {
	User string `path:"user" maxLength:"100" doc:"name of a user"`
}

func (s *Server) putUser(ctx context.Context, in *struct {
	UserPath
	Body SetUser
}) (*body[User], error) {
	u := ledger.User{Name: in.User, Role: ledger.Role(in.Body.Role)}
	if !userForm.MatchString(u.Name) {
		return nil, problem.Wrongf("the name of a user has small letters, digits, '.', '_' and '-', and begins with a letter; %.80q does not",
			u.Name)
	}
	err := s.change(ctx, "set user", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.Why = in.Body.Why
		old, err := tx.User(u.Name)
		if err != nil && !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		u.Password = old.Password
		e.On, e.Why = u.Name, because(string(u.Role), e.Why)
		return tx.PutUser(u)
	})
	return answer(User{u.Name, u.Role}, err)
}

func (s *Server) deleteUser(ctx context.Context, in *struct {
	UserPath
	WhyInput
}) (*struct{}, error) {
	return nil, s.change(ctx, "delete user", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.Why = in.Why
		e.On = in.User
		return tx.DeleteUser(in.User)
	})
}

func tokenOf(t ledger.Token) Token {
	return Token{ID: tokenID(t.Hash), Name: t.Name, User: t.User, Role: t.Role, Group: t.Group, Expires: t.Expires}
}

func (s *Server) listTokens(ctx context.Context, in *struct {
	User string `query:"user" maxLength:"100" doc:"tokens of this user"`
}) (*body[[]Token], error) {
	out := []Token{}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		all, err := tx.Tokens(in.User)
		for _, t := range all {
			out = append(out, tokenOf(t))
		}
		return err
	})
	return answer(out, err)
}

func (s *Server) addToken(ctx context.Context, in *struct{ Body NewToken }) (*body[Token], error) {
	q := in.Body
	if !q.Expires.IsZero() && !q.Expires.After(s.cfg.Now()) {
		return nil, problem.Wrongf("%s is in the past; give the time at which the token ends", q.Expires.UTC().Format(time.RFC3339))
	}
	if strings.Contains(q.Name, runMark) {
		return nil, problem.Wrongf("the name of a token may have no %q, which stands before the name of a run", runMark)
	}
	secret := newSecret()
	t := ledger.Token{Hash: hashOf(secret), Name: q.Name, User: q.User, Role: ledger.Role(q.Role), Group: q.Group, Expires: q.Expires}
	err := s.change(ctx, "add token", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.Why = q.Why
		what := fmt.Sprintf("%s, as %s", t.Name, t.Role)
		if t.User != "" {
			what += " of " + t.User
		}
		if t.Group != "" {
			what += " for the group " + t.Group
		}
		e.On, e.Why = tokenID(t.Hash), because(what, e.Why)
		if err := noMore(tx, t); err != nil {
			return err
		}
		return tx.PutToken(t)
	})
	v := tokenOf(t)
	v.Secret = secret
	return answer(v, err)
}

// noMore refuses a token that asks for more than its user may do. It would do no more than
// the user does now, and all that is asked for as soon as the user may do more.
func noMore(tx *ledger.Tx, t ledger.Token) error {
	if t.User == "" {
		return nil
	}
	u, err := tx.User(t.User)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil // PutToken says so
	}
	if err == nil && !(&caller{role: u.Role}).may(t.Role) {
		err = problem.Refusef("%s has the role %s, so no token of that user can have the role %s; make a token with the role %s, "+
			"or give the user another role first", u.Name, u.Role, t.Role, u.Role)
	}
	return err
}

func (s *Server) deleteToken(ctx context.Context, in *struct {
	Token string `path:"token" minLength:"8" maxLength:"64" pattern:"^[0-9a-f]+$" doc:"id of a token"`
	WhyInput
}) (*struct{}, error) {
	return nil, s.change(ctx, "delete token", func(tx *ledger.Tx, _ *caller, e *ledger.Entry) error {
		e.Why = in.Why
		all, err := tx.Tokens("")
		if err != nil {
			return err
		}
		var found []ledger.Token
		for _, t := range all {
			if strings.HasPrefix(fmt.Sprintf("%x", t.Hash[:]), in.Token) {
				found = append(found, t)
			}
		}
		switch len(found) {
		case 0:
			return notFound("there is no token %s", in.Token)
		case 1:
			e.On, e.Why = tokenID(found[0].Hash), because(found[0].Name, e.Why)
			return tx.DeleteToken(found[0].Hash)
		}
		return problem.Wrongf("%d tokens begin with %s; give more of the id", len(found), in.Token)
	})
}

func (s *Server) listAudit(ctx context.Context, in *struct {
	Who   string    `query:"who" maxLength:"200" doc:"entries of this person"`
	What  string    `query:"what" maxLength:"100" doc:"entries of this kind"`
	On    string    `query:"on" maxLength:"300" doc:"entries of this box, job or user"`
	Since time.Time `query:"since" doc:"entries of this time or later"`
	Until time.Time `query:"until" doc:"entries of before this time"`
	PageInput
}) (*body[Entries], error) {
	out := Entries{Entries: []Entry{}}
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
		f := ledger.AuditFilter{Who: in.Who, What: in.What, On: in.On, Since: in.Since, Until: in.Until}
		all, next, err := tx.Audit(f, in.page())
		out.Next = next
		for _, e := range all {
			out.Entries = append(out.Entries, Entry(e))
		}
		return err
	})
	return answer(out, err)
}
