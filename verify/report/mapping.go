package report

// framework is a text that asks for tests of restores.
type framework struct {
	Name     string
	Controls []control
}

// control is one of its demands: what the evidence shows of it and what not.
// Asks is a paraphrase; the text itself counts.
type control struct {
	ID, Asks string
	Fields   string
	Shows    string
	Not      string
}

// frameworks are those that docs/report.md names. They are modest on purpose:
// a tool shows that something was done, not that an organisation is in order.
func frameworks() []framework {
	return []framework{
		{"SOC 2, Trust Services Criteria", []control{{
			ID: "A1.3", Asks: "Recovery plan procedures are tested, so that the system can be recovered to meet its objectives; a point of focus is the integrity and completeness of backup data.",
			Fields: "id, started, ended, by, level, backup, checks, verdict, reasons, rpo, rto",
			Shows:  "When a restore was tested, by whom, with which backup, what was checked, the result, and the objectives against what was achieved. Failures and missed drills are listed with the rest.",
			Not:    "The recovery plan itself, tests of people and of other systems, who approved the objectives, what was done about a failure.",
		}}},
		{"ISO/IEC 27001:2022, annex A", []control{{
			ID: "8.13", Asks: "Backup copies are maintained and regularly tested, as the topic-specific policy on backup says.",
			Fields: "started, backup, coverage, verdict; missed drills of this pack",
			Shows:  "That backups existed, which were tested and when, which never were, and whether the interval that was given for this pack was kept.",
			Not:    "The policy, and that the interval is the one in it; retention and places of the copies; data that is not in this PostgreSQL cluster.",
		}}},
		{"DORA, Regulation (EU) 2022/2554, article 12", []control{
			{
				ID: "(2), last sentence", Asks: "Backup procedures and restoration and recovery procedures and methods are tested periodically.",
				Fields: "started, level, phases, verdict; missed drills of this pack",
				Shows:  "Each test of restoration and recovery, its steps and its result, and the spans of time in which none passed.",
				Not:    "That backup systems can be activated without harm to security, which the paragraph also demands; tests of other systems.",
			}, {
				ID: "(3)", Asks: "Restoring with own systems is done on systems that are physically and logically segregated from the source system.",
				Fields: "by.host, backup.host, fence.network, fence.files, fence.user, fence.proven, fence.missing",
				Shows:  "The names of the host that the drill ran on and of the one that the backup came from, and what fenced the restored server off, as seen on it while it ran; what could not be proven is listed as missing. This is part of logical segregation.",
				Not:    "Physical segregation: a name proves no place. Protection of that host against access and corruption, and how production would be restored in an incident.",
			}, {
				ID: "(7)", Asks: "When recovering from an incident, checks, including multiple checks and reconciliations, ensure the highest level of data integrity.",
				Fields: "checks (kind, required, verdict, detail), level",
				Shows:  "Which checks ran on the restored data and their results, in rehearsal.",
				Not:    "Checks in a real incident, reconciliation with other systems or with data from outside, and whether the checks are enough for the function.",
			},
		}},
		{"NIST SP 800-53, revision 5", []control{
			{
				ID: "CP-9(1)", Asks: "Backup information is tested, at a frequency that the organisation sets, for the reliability of media and the integrity of information.",
				Fields: "backup, wal, checks, coverage, verdict; missed drills of this pack",
				Shows:  "That a backup was read from the store, decrypted, verified and restored, and how often.",
				Not:    "Reliability of the media themselves; backups that no drill used; that the frequency is the one in the plan.",
			}, {
				ID: "CP-9(2)", Asks: "A sample of backup information is used in restoring selected system functions, as part of contingency plan testing.",
				Fields: "backup.label, backup.picked, target.random, coverage",
				Shows:  "Which backup was restored and whether it was the latest, chosen by chance or by name; whether the point in time was chosen by chance.",
				Not:    "The size of the sample that the organisation needs, functions beyond the database, the contingency plan.",
			}, {
				ID: "CP-10", Asks: "The system can be recovered and reconstituted to a known state within a time that fits its recovery time and recovery point objectives.",
				Fields: "rto, rpo, phases, host, verdict",
				Shows:  "The time and the loss that a drill measured, on the machine that it names, against the objectives in force then.",
				Not:    "Time to notice, decide, get machines and switch users over, none of which is in the RTO here; the same speed on other machines; reconstitution of the system around the database.",
			},
		}},
	}
}
