package main

import (
	"fmt"

	"github.com/pabal-go/pabal"
)

type migrateCommand struct {
	DB     string `name:"db" help:"The database: ${databases}." placeholder:"ADDRESS" env:"PABAL_DB"`
	Prefix string `help:"Prefix of the names of Pabal's tables." default:"pabal_" env:"PABAL_TABLE_PREFIX"`
	Print  bool   `help:"Print the SQL for goose, Flyway, Liquibase or Atlas; touch nothing. Of --db only the scheme counts (mysql:); default: sqlite."`
}

func (c *migrateCommand) Run(a *app) error {
	if c.Print {
		script, err := printSchema(c.DB, c.Prefix)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(a.stdout, script)
		return err
	}
	if c.DB == "" {
		return usage("--db is missing: give %s (or --print)", databaseForms())
	}
	d, err := openDatabase(c.DB, c.Prefix)
	if err != nil {
		return err
	}
	defer d.close()
	m, err := d.migrate(a.ctx)
	if err != nil {
		return err
	}
	return a.said(map[string]string{"migrated": m.String()}, "%s", m)
}

type restoredCommand struct{ storeFlags }

func (c *restoredCommand) Run(a *app) error {
	return c.operator(a.ctx, func(o *pabal.Operator) error {
		if err := o.Restored(a.ctx); err != nil {
			return err
		}
		return a.said(map[string]bool{"restored": true}, "noted: keys begin new runs with their next events")
	})
}
