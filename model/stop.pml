/* One stop of all threads, as src/engine performs it, with the kernel as an actor.
 *
 * Names and the order of the steps follow src/engine/rendezvous.rs, gather.rs, caller.rs and handler.rs (and their folders). Each atomic
 * access of the engine is one step. Each kernel call is one step (a list of tasks is one step for each task). The memory
 * is sequentially consistent, as all accesses of the rendezvous are.
 *
 * `model/run` compiles this file once, and runs it once for each configuration and for each planned mutation. All of that
 * comes from the environment:
 *
 *   THREADS    threads that are there at the beginning; thread 0 calls
 *   CALLERS    how many threads call: threads 0 to CALLERS - 1
 *   BIRTHS     how many threads may be made (by clone, at any moment)
 *   EXITS      how many threads may exit by themselves
 *   DEATHS     how many threads may be killed at a kernel entry or in a sleep; MORTAL is the set of threads that may be
 *   FULLQ      how often the signal queue may be full
 *   MISSES     how often a list may leave a living thread out (getdents(2) of a task directory does)
 *   ROUNDS     how many rounds a call may have
 *   PASSES     how many turns a round may have without a proof; it may be given up earlier at any moment
 *   WATCHES, HAND_OVER   as in the engine, but smaller, because there are fewer threads
 *   TIMERS     1: the waits of watches and in the pause may expire. 0: they never do, so a lost wake-up is a deadlock
 *   REUSE      1: a new thread may get the tid of a dead one
 *   EXEC       1: one thread may call execve
 *   FOREIGN    1: another library sends its own signal 33 to each thread, and waits for all of them
 *   DIFFER     1: the result of the call may differ in one thread (and the process is to be killed for it)
 *   FAILS      1: the caller's own call may fail
 *   LEADER     1: thread 1 is a leader: if it exits, it stays as a zombie
 *   MUTATION   the number of a planned mutation: see M(n), and the list in `model/run`
 *   REACH      the number of a statement that the search must reach: see REACHED(n)
 *   RECORD     a file with the changes of `state` in a recorded run: is it a path of the model?
 */

/* The configuration: constants that `init` takes from the environment, so that one compilation does for all. */
hidden byte THREADS = 3;
hidden byte CALLERS = 1;
hidden byte BIRTHS = 0;
hidden byte EXITS = 0;
hidden byte DEATHS = 0;
hidden byte MORTAL = 15;
hidden byte FULLQ = 0;
hidden byte MISSES = 0;
hidden byte ROUNDS = 2;
hidden byte PASSES = 3;
hidden byte WATCHES = 1;
hidden byte HAND_OVER = 1;
hidden byte TIMERS = 1;
hidden byte REUSE = 0;
hidden byte EXEC = 0;
hidden byte FOREIGN = 0;
hidden byte DIFFER = 0;
hidden byte FAILS = 0;
hidden byte LEADER = 0;
hidden byte MUTATION = 0;
hidden byte REACH = 0;

#define M(n) (MUTATION == n)

#define NT 4            /* threads, ever */
#define NE 5            /* entries of the table */
#define NOBODY 9        /* as an entry: a signal of another library */

/* life */
#define UNBORN 0
#define ALIVE 1
#define EXITING 2       /* exempt: a zombie, or PF_EXITING. Still listed and counted */
#define OVER 3

/* phase */
#define CLOSED 0
#define GATHERING 1
#define FULL 2
#define COMMITTING 3

/* mark */
#define IDLE 0
#define SENT 1
#define HELD 2
#define EXEMPT 3
#define AGREED 4
#define DIFFERS 5
#define DIED 6

/* futex words */
#define AWAKE 0
#define GATE 1
#define EXIT 2
#define CALLER_FUTEX 3
#define PAUSE 4
#define LOCK 5

/* The kernel's view. */
byte life[NT];
byte tid[NT];
bit user[NT];           /* runs code of the program, or may */
byte asleep[NT];        /* on which word */
chan sig[NT] = [2] of { byte };         /* pending signals: the entry each carries */
bit kin[NT];            /* zombie leader: never goes away */
byte births, exits, deaths, fullq, misses, differ;
byte execer = NT;       /* the thread that has called execve */
bit may_exec;
bit killed;             /* the process was killed */
byte foreign;           /* how many foreign signals were handled as such */

/* What the process is about: how many broadcasts each thread has performed. */
byte done[NT];

/* `Rendezvous` */
byte ep, phase, count;
byte gate, exit_, caller_futex, pause_, awaited;
bit awaited_asleep, last;
byte caller, lock;
bit sleepers;

/* `ThreadTable` and `Shared` */
byte etid[NE], emark[NE], enr[NE], evalue[NE];
byte size;
bit keep;
byte plan;              /* what `done` is after the published call */

#define TIDOF(i) (i + 1)
#define LISTED(k) (life[k] == ALIVE || life[k] == EXITING)
#define TASKS (LISTED(0) + LISTED(1) + LISTED(2) + LISTED(3))
#define HAS_SUCCESSOR(k) (REUSE && k != NT - 1 && LISTED(NT - 1) && tid[NT - 1] == tid[k])
#define LIVES(k, t) (life[k] == ALIVE && tid[k] == t)
#define GONE(t) (!(LIVES(0, t) || LIVES(1, t) || LIVES(2, t) || LIVES(3, t)))
#define ASLEEP_ON(w) ((asleep[0] == w) + (asleep[1] == w) + (asleep[2] == w) + (asleep[3] == w))

/* P3: while a thread runs code of the program, every living thread has performed the same: no code runs between the first
 * and the last execution of a call. */
#define BEHIND(a, b) (life[a] == ALIVE && user[a] && life[b] == ALIVE && done[a] != done[b])
#define BEHIND_ANY(a) (BEHIND(a, 0) || BEHIND(a, 1) || BEHIND(a, 2) || BEHIND(a, 3))
#define MIXED (BEHIND_ANY(0) || BEHIND_ANY(1) || BEHIND_ANY(2) || BEHIND_ANY(3))
#define CHECK assert(killed || !MIXED)

#define MAY_DIE(i) ((deaths > 0 && (MORTAL >> i) & 1) || (execer < NT && execer != i))
/* At a kernel entry, or in a sleep: an alternative. */
#define DIE(i) atomic { MAY_DIE(i) -> if :: execer < NT :: else -> deaths-- fi; goto dead }

/* A kernel call. */
#define CALL(i, what) if :: DIE(i) :: atomic { what } fi
#define OR_DIE(i) :: DIE(i)

/* Wakes one thread that sleeps on `w`: any. (The kernel wakes in order of arrival; the engine does not rely on it.) */
#define WAKE_ONE(w) if \
    :: asleep[0] == w -> asleep[0] = AWAKE \
    :: asleep[1] == w -> asleep[1] = AWAKE \
    :: asleep[2] == w -> asleep[2] = AWAKE \
    :: asleep[3] == w -> asleep[3] = AWAKE \
    :: else fi
#define MOVE1(k, w, to) if :: asleep[k] == w -> asleep[k] = to :: else fi
#define MOVE(w, to) MOVE1(0, w, to); MOVE1(1, w, to); MOVE1(2, w, to); MOVE1(3, w, to)
#define WAKE_ALL(w) MOVE(w, AWAKE)

/* FUTEX_WAIT: compares and sleeps in one step. */
#define WAIT(i, w, now, seen) if :: now == seen || M(1) -> asleep[i] = w :: else fi

/* FUTEX_WAKE with a count of HAND_OVER. */
#define HAND_ON if :: M(2) :: !M(2) -> WAKE_ONE(EXIT); if :: HAND_OVER > 1 -> WAKE_ONE(EXIT) :: else fi fi

/* `State` as one word: compare-exchange. */
#define IS_STATE(e, p, c) ((ep == e || M(3)) && phase == p && count == c)

/* The entry of a tid. */
#define FIND(e, t) d_step { e = 0; do :: e < size && etid[e] != t -> e++ :: else -> break od }

/* `Rendezvous::close`: two steps, the second an exchange. `was` is what `release` looks at. */
#define CLOSE(i, was, event) was = phase; atomic { NEXT(event, 0) -> phase = CLOSED; count = 0; SEEN }

/* The time of a watch is over. If the caller lives and nothing has changed, the thread would just sleep again: such a step is
 * left out, or it would hide a deadlock. */
#define EXPIRES(i, mine) (TIMERS && watch && (GONE(caller) || ep != mine || phase == CLOSED || phase == COMMITTING))
#define EXPIRES_ON_EXIT(i, mine) (TIMERS && watch && (GONE(caller) || ep != mine || phase != COMMITTING))

/* `handler::await_reports`, by the caller or by a watch that ends the stop in its place: waits for the reports, and
 * writes off threads that died before they reported. PATIENCE may pass at any moment; it matters if a thread is dead, or if
 * the caller died before it woke the threads, or if the last thread died before it woke the caller. */
#define DEAD_HELD(x) (x < size && emark[x] == HELD && enr[x] == ep && GONE(etid[x]) && !M(4))
#define AWAIT_REPORTS(i) \
    do \
    :: b = caller_futex; \
        if :: count == 0 -> break :: else fi; \
        CALL(i, WAIT(i, CALLER_FUTEX, caller_futex, b)); \
        do \
        OR_DIE(i) \
        :: asleep[i] == AWAKE -> break \
        :: atomic { \
                DEAD_HELD(0) || DEAD_HELD(1) || DEAD_HELD(2) || DEAD_HELD(3) || DEAD_HELD(4) \
                || (TIMERS && (ASLEEP_ON(GATE) > 0 || count == 0)) -> asleep[i] = AWAKE \
            }; \
            atomic { WAKE_ALL(GATE); WAKE_ALL(EXIT) }; \
            e = 0; \
            do \
            :: e == size -> break \
            :: e < size -> \
                if \
                :: atomic { DEAD_HELD(e) -> emark[e] = DIED; REACHED(5) }; count-- \
                :: else \
                fi; \
                e++ \
            od; \
            e = 0; \
            break \
        od \
    od; \
    b = 0

#define DIVERGENT1(x) (x < size && (emark[x] == DIFFERS || emark[x] == DIED))
#define DIVERGENT (DIVERGENT1(0) || DIVERGENT1(1) || DIVERGENT1(2) || DIVERGENT1(3) || DIVERGENT1(4))

/* `Rendezvous::abandon` and `unlock`. */
#define ABANDON(i) CLOSE(i, h, 'b'); \
    gate = (gate + 1) & 3; CALL(i, WAKE_ALL(GATE)); \
    if :: M(5) :: else -> exit_ = (exit_ + 1) & 3; CALL(i, WAKE_ALL(EXIT)) fi; h = 0
#define UNLOCK(i) atomic { b = sleepers; lock = 0; sleepers = 0 }; \
    if :: b -> CALL(i, WAKE_ONE(LOCK)) :: else fi; b = 0
#define INHERIT(from, me) atomic { if :: lock == from -> lock = me; sleepers = 1; h = 1 :: else -> h = 0 fi }

/* `end_pause` */
#define END_PAUSE(i) atomic { b = pause_; if :: M(6) -> b = 0 :: else -> pause_ = 0 fi }; \
    if :: b != 0 -> CALL(i, WAKE_ALL(PAUSE)) :: else fi; b = 0

/* Not a claim: shows that the search gets there. */
#define REACHED(n) assert(REACH != n)

/* The changes of `state` in the order of a recorded run, if there is one: only a change that comes next there is made.
 * The search looks for the end of the record. */
c_decl {
\#include <stdio.h>
\#include <stdlib.h>
}
hidden byte what[2000];
hidden byte actor[2000];
hidden short events;
short at;
bit what_is_set;         /* the configuration was read */
#define NEXT(w, x) (events == 0 || (at < events && what[at] == w && actor[at] == x))
#define SEEN if :: events > 0 -> at++ :: else fi

/* `full_pass`, first part, for one task of the list: finds or makes its entry, and looks at the task. */
#define LOOK(k) d_step { \
    e = 0; \
    do :: e < size && etid[e] != tid[k] -> e++ :: else -> break od; \
    assert(e < NE); \
    if \
    :: e < size && emark[e] == HELD && enr[e] == ep -> c = 1 \
    :: else -> \
        if :: e == size -> etid[e] = tid[k]; emark[e] = IDLE; enr[e] = 0; size++ :: else fi; \
        if \
        :: life[k] == EXITING -> c = 2 \
        :: life[k] == ALIVE && len(sig[k]) == 0 -> c = 4 \
        :: life[k] == ALIVE && len(sig[k]) > 0 -> c = 5 \
        :: else -> c = 3 \
        fi \
    fi }
/* Second part: whether an exempt task is listed still. */
#define LOOK_AGAIN(k) d_step { \
    if \
    :: k != i && life[k] == EXITING -> \
        e = 0; \
        do :: e < size && etid[e] != tid[k] -> e++ :: else -> break od; \
        if :: e < size && emark[e] == EXEMPT && enr[e] == ep && evalue[e] == k -> same++ :: else fi; \
        e = 0 \
    :: else \
    fi }

proctype thread(byte i)
{
    /* handler */
    byte mine;          /* the entry whose address the signal carried */
    byte my_ep, my_count;
    bit parked, stays, watch, reported;
    bit nested;         /* the handler interrupts the sleep for the lock */
    /* caller */
    byte k, e, h, c, b;
    byte due, held, exempt, same, turns, rounds;
    bit calls, slept, complete, no_place, ok;
    byte before;

    calls = (i < CALLERS);
end_unborn:
    life[i] == ALIVE;

in_user:
    k = 0; e = 0; h = 0; c = 0; b = 0; due = 0; held = 0; exempt = 0; same = 0;
end_user:
    do
    :: killed -> goto finish
    :: atomic { sig[i]?mine -> user[i] = 0 }; goto handler
    :: atomic { births > 0 && life[NT - 1] == UNBORN && execer == NT ->
            births--;
            /* fork and clone take the state of the thread that calls them. */
            done[NT - 1] = done[i];
            tid[NT - 1] = TIDOF(NT - 1);
            if
            :: REUSE && life[1] == OVER -> tid[NT - 1] = tid[1]
            :: REUSE && life[2] == OVER -> tid[NT - 1] = tid[2]
            :: true
            fi;
            user[NT - 1] = 1;
            life[NT - 1] = ALIVE;
            CHECK
        }
    :: atomic { exits > 0 && i > 0 && execer == NT -> exits--; user[i] = 0 }; goto dead
    :: atomic { deaths > 0 && (MORTAL >> i) & 1 && !calls -> deaths-- }; goto dead
    :: atomic { may_exec && execer == NT && i > 0 -> may_exec = 0; execer = i; user[i] = 0 }; goto exec
    :: execer < NT && execer != i -> goto dead
    :: atomic { calls && execer == NT -> calls = 0; user[i] = 0; before = done[i] }; goto take_turn
    od;

exec:
    /* All other threads die, each at its next kernel entry or in its sleep. */
    do
    :: (life[0] == OVER || life[0] == UNBORN || i == 0) && (life[1] == OVER || life[1] == UNBORN || i == 1) &&
        (life[2] == OVER || life[2] == UNBORN || i == 2) && (life[3] == OVER || life[3] == UNBORN || i == 3) -> break
    :: killed -> goto finish
    od;
    goto finish;

/* ---- The half of a held thread: `on_signal`, `Rendezvous::visit` ---- */

handler:
    if
    :: mine == NOBODY && !M(7) -> foreign++; goto return_
    :: mine == NOBODY && M(7) ->
        /* A signal of the kind that glibc sends is taken for ours: the thread looks for its own entry. */
        FIND(mine, tid[i]);
        if :: mine >= size -> goto return_ :: else fi
    :: else
    fi;
    /* `come_back` needs a jump out of a handler of SIGSYS, which the model does not have. */
    assert(!(etid[mine] == tid[i] && emark[mine] == HELD && enr[mine] == ep && phase != CLOSED));
    CALL(i, skip);            /* gettid(2), the probe */
arrive:
    atomic { my_ep = ep; my_count = count; h = phase };
    if
    :: h != GATHERING ->
        if
        :: !parked ->
            b = pause_;
            if
            :: b == 0 || h != CLOSED || b != my_ep || (caller == tid[i] && !M(23))
            :: else ->
                CALL(i, WAIT(i, PAUSE, pause_, b));
                do
                OR_DIE(i)
                :: asleep[i] == AWAKE -> break
                :: killed -> goto finish
                :: atomic { TIMERS && asleep[i] == PAUSE -> asleep[i] = AWAKE };
                    atomic { if :: pause_ == b -> pause_ = 0 :: else fi };
                    break
                od;
                REACHED(3); parked = 1; b = 0;
                goto arrive
            fi;
            b = 0
        :: else
        fi;
        atomic {
            if
            :: etid[mine] == tid[i] && emark[mine] == SENT -> emark[mine] = IDLE
            /* Marked, and not counted: the gate was closed meanwhile. */
            :: etid[mine] == tid[i] && emark[mine] == HELD && !M(22) -> emark[mine] = IDLE; enr[mine] = 0
            :: else
            fi
        };
        if :: phase != GATHERING -> goto return_ :: else -> goto arrive fi
    :: else
    fi;
    if :: etid[mine] != tid[i] && !M(8) -> REACHED(8); goto return_ :: else fi;
    atomic {
        if
        :: etid[mine] != tid[i] && !M(8) -> goto return_
        :: else -> emark[mine] = HELD; enr[mine] = my_ep
        fi
    };
    atomic {
        if
        :: IS_STATE(my_ep, GATHERING, my_count) && NEXT('a', i) -> count++; my_count = count; SEEN
        :: !IS_STATE(my_ep, GATHERING, my_count) -> h = 0; goto arrive
        fi
    };
    watch = (my_count <= WATCHES && !M(9));
    h = 0;
    atomic { if :: awaited == my_count && awaited_asleep -> h = 1 :: else fi };
    if :: h -> caller_futex = (caller_futex + 1) & 3; CALL(i, WAKE_ONE(CALLER_FUTEX)) :: else fi;
    h = 0; my_count = 0;

await_plan:
    b = gate;
    atomic {
        if
        :: ep != my_ep || phase == CLOSED -> b = 0; goto leave_gate
        :: phase == COMMITTING && ep == my_ep -> b = 0; goto perform
        :: else
        fi
    };
    CALL(i, WAIT(i, GATE, gate, b));
    b = 0;
    do
    OR_DIE(i)
    :: killed -> goto finish
    :: asleep[i] == AWAKE -> goto await_plan
    :: atomic { asleep[i] == GATE && EXPIRES(i, my_ep) -> asleep[i] = AWAKE }; break
    /* A thread that `release` has moved sleeps on EXIT now, still in this wait. */
    :: atomic { asleep[i] == EXIT && EXPIRES(i, my_ep) -> asleep[i] = AWAKE }; break
    od;
    if
    :: atomic { (phase == GATHERING || phase == FULL) && ep == my_ep }; reported = 0; goto look_after
    :: else -> CALL(i, WAKE_ALL(GATE)); goto await_plan
    fi;

perform:
    /* P1, once: exactly the call that is published, and not a second time. */
    if
    :: DIE(i)
    :: atomic { differ > 0 -> differ--; h = DIFFERS }
    :: atomic { assert(done[i] == plan - 1); done[i] = plan; h = AGREED; CHECK }
    fi;
    atomic {
        if
        :: etid[mine] == tid[i] && emark[mine] == HELD && enr[mine] == my_ep -> emark[mine] = h; h = 1
        :: else -> h = 0
        fi
    };
    if
    :: h ->
        if :: count == 1 -> last = 1 :: else fi;
        atomic { NEXT('r', i) -> count--; h = (count == 0); SEEN };
        if
        :: h ->
            caller_futex = (caller_futex + 1) & 3;
            CALL(i, WAKE_ONE(CALLER_FUTEX));
            last = 0
        :: else
        fi
    :: else
    fi;
    h = 0;
    if :: M(10) -> goto leave :: else fi;

await_release:
    b = exit_;
    if :: phase != COMMITTING || ep != my_ep -> b = 0; goto leave :: else fi;
    CALL(i, WAIT(i, EXIT, exit_, b));
    b = 0;
    do
    OR_DIE(i)
    :: killed -> goto finish
    :: asleep[i] == AWAKE -> goto await_release
    :: atomic { asleep[i] == EXIT && EXPIRES_ON_EXIT(i, my_ep) -> asleep[i] = AWAKE }; break
    od;
    if :: phase == COMMITTING -> reported = 1; goto look_after :: else -> goto await_release fi;

look_after:
    c = caller;
    if
    :: DIE(i)
    :: !GONE(c) -> goto look_on
    :: GONE(c)
    fi;
    if :: !reported && phase == COMMITTING -> goto look_on :: else fi;
    /* `take_over` */
    INHERIT(c, tid[i]);
    if :: !h -> goto look_on :: else fi;
    caller = tid[i];
    h = 0;
    REACHED(4);
    if
    :: phase == COMMITTING && !M(11) ->
        AWAIT_REPORTS(i);
        if :: DIVERGENT -> if :: DIE(i) :: killed = 1; goto finish fi :: else fi
    :: else
    fi;
    ABANDON(i);
    UNLOCK(i);
look_on:
    c = 0; h = 0;
    if :: reported -> reported = 0; goto await_release :: else -> goto await_plan fi;

leave_gate:
    /* The thread was late for the round that has been given up. */
    stays = parked;
    /* A watch that leaves changes the words that the caller may not live to change. */
    if :: watch && !M(21) -> gate = (gate + 1) & 3; CALL(i, WAKE_ALL(GATE)) :: else fi;
leave:
    if :: watch && !M(21) -> exit_ = (exit_ + 1) & 3 :: else fi;
    watch = 0;
    if :: stays :: else -> my_ep = 0 fi;
    CALL(i, HAND_ON);
    if
    :: stays ->
        /* `stays_for_next_round` */
        atomic { stays = 0; parked = 0; b = (pause_ == my_ep) };
        atomic {
            if
            :: b && etid[mine] == tid[i] && emark[mine] == HELD && enr[mine] == my_ep -> emark[mine] = SENT; enr[mine] = 0; b = 0
            :: else -> goto return_
            fi
        };
        REACHED(10);
        goto arrive
    :: else
    fi;
return_:
    CALL(i, skip);            /* rt_sigreturn(2) */
    parked = 0; my_ep = 0; my_count = 0; h = 0; b = 0; mine = 0;
    if
    :: killed -> goto finish
    :: !killed && nested -> atomic { nested = 0; user[i] = 1; CHECK; user[i] = 0 }; goto take_turn
    :: !killed && !nested -> atomic { user[i] = 1; CHECK }; goto in_user
    fi;

/* ---- The caller's half: `Stop::run` ---- */

take_turn:
    /* `lock`, `take_turn` */
    if
    :: DIE(i)
    :: atomic { lock == 0 -> lock = tid[i]; sleepers = slept; c = 0 }
    :: atomic { lock != 0 -> c = lock; assert(c != tid[i]) }
    fi;
    if
    :: c == 0
    :: else ->
        if
        :: slept && GONE(c) ->
            INHERIT(c, tid[i]);
            if
            :: h ->
                caller = tid[i];
                c = 0;
                REACHED(7);
                /* `clean_up` */
                if :: phase == COMMITTING && count != 0 -> killed = 1; goto finish :: else fi;
                ABANDON(i)
            :: else -> h = 0; c = 0; goto take_turn
            fi
        :: else ->
            /* `sleep_on_lock`: signals are open, so the program's handlers may run. */
            b = lock;
            if :: b == 0 -> c = 0; goto take_turn :: else fi;
            atomic { if :: lock == b -> sleepers = 1 :: else -> b = 0; c = 0; goto take_turn fi };
            atomic { user[i] = 1; CHECK; slept = 1 };
            CALL(i, if :: lock == b && sleepers -> asleep[i] = LOCK :: else fi);
            do
            OR_DIE(i)
            :: killed -> goto finish
            :: atomic { asleep[i] == AWAKE -> user[i] = 0; b = 0; c = 0; goto take_turn }
            :: atomic { sig[i]?mine -> asleep[i] = AWAKE; user[i] = 0; nested = 1; b = 0; c = 0; REACHED(9); goto handler }
            /* PATIENCE is over. If the owner lives, the thread would just sleep again. */
            :: atomic { asleep[i] == LOCK && GONE(lock) -> asleep[i] = AWAKE }
            od
        fi
    fi;
    c = 0; h = 0; slept = 0;

    /* `round`: `ThreadTable::begin` */
    h = keep; keep = 0;                 /* h: not all are forgotten */
    e = 0; k = 0; c = 0;                /* k: the end; c: where a gap may be */
    do
    :: e < size ->
        /* A late signal may turn SENT into IDLE at any moment, and a thread that stays its HELD into SENT. Nothing else changes an
         * entry while the state is closed. If `begin` frees or moves the entry of a thread that is about to stay, the thread leaves. */
        d_step {
            if
            :: h && etid[e] != 0 && !GONE(etid[e]) && (emark[e] == SENT || emark[e] == EXEMPT) -> keep = 1; k = e + 1
            :: h && etid[e] != 0 && !GONE(etid[e]) && !(emark[e] == SENT || emark[e] == EXEMPT) ->
                b = etid[e];
                etid[e] = 0; emark[e] = IDLE; enr[e] = 0;
                do :: etid[c] != 0 -> c++ :: else -> break od;
                etid[c] = b;
                b = 0;
                c++;
                if :: k < c -> k = c :: else fi
            :: else -> etid[e] = 0; emark[e] = IDLE; enr[e] = 0
            fi
        };
        e++
    :: else -> break
    od;
    atomic { size = k; k = 0; c = 0; e = 0; h = 0 };
    rounds++;

    /* `Gather::run`, `Rendezvous::open` */
    caller = tid[i];
    atomic { awaited = 0; awaited_asleep = 0 };
    last = 0;
    atomic { NEXT('o', 0) -> ep++; phase = GATHERING; count = 0; SEEN };
    END_PAUSE(i);
    held = 0; turns = 0;

sweep:
    /* Signals every listed thread that has no signal on its way and is not held. */
    k = 0; due = 0; no_place = 0;
    do
    :: k == NT -> break
    :: k < NT && (k == i || !LISTED(k)) -> k++
    :: atomic { k < NT && k != i && LISTED(k) && misses > 0 -> misses-- }; k++
    :: k < NT && k != i && LISTED(k) ->
        /* The caller alone changes tids and the length, so this is one step but for the mark. */
        d_step {
            e = 0;
            do :: e < size && etid[e] != tid[k] -> e++ :: else -> break od;
            assert(e < NE);
            if :: e == size -> etid[e] = tid[k]; emark[e] = IDLE; enr[e] = 0; size++ :: else fi;
            h = emark[e];
            c = enr[e]
        };
        if
        :: h == SENT -> due++
        :: h == EXEMPT
        :: h == HELD && c == ep -> due++
        :: else ->
            atomic {
                if
                :: emark[e] == h && enr[e] == c && etid[e] == tid[k] -> emark[e] = SENT; enr[e] = 0; h = 1
                :: else -> h = 0; due++
                fi
            };
            if
            :: h ->
                /* rt_tgsigqueueinfo(2) */
                if
                :: DIE(i)
                :: atomic { LISTED(k) && len(sig[k]) < 2 && !no_place -> sig[k]!e }; due++
                :: atomic { fullq > 0 || len(sig[k]) == 2 -> if :: fullq > 0 -> fullq-- :: else fi; no_place = 1 };
                    atomic { if :: emark[e] == SENT -> emark[e] = IDLE :: else fi }
                :: !LISTED(k) && !HAS_SUCCESSOR(k) ->
                    atomic { if :: emark[e] == SENT -> emark[e] = IDLE :: else fi }
                /* The signal goes to the new thread with this tid. */
                :: atomic { !LISTED(k) && HAS_SUCCESSOR(k) && len(sig[NT - 1]) < 2 -> sig[NT - 1]!e }; due++
                fi
            :: else
            fi
        fi;
        h = 0; c = 0; e = 0; no_place = 0;
        k++
    od;
    k = 0;

    /* `wake_leavers` */
    CALL(i, if :: M(12) :: !M(12) -> WAKE_ALL(EXIT) fi);

    /* `await_arrivals` */
    atomic { awaited = due; awaited_asleep = 0 };
    awaited_asleep = 1;
    do
    :: b = caller_futex;
        if :: count >= due -> break :: else fi;
        CALL(i, WAIT(i, CALLER_FUTEX, caller_futex, b));
        do
        OR_DIE(i)
        :: asleep[i] == AWAKE -> break
        :: atomic { asleep[i] == CALLER_FUTEX -> asleep[i] = AWAKE }; goto slice_over
        od
    od;
slice_over:
    b = 0;

    /* `prove`: first the held count, then the number of threads. */
    if
    :: !M(13) -> h = count; CALL(i, c = TASKS)
    :: M(13) -> c = TASKS; h = count
    fi;
    ok = (c == h + 1);
    if :: M(14) -> ok = (h >= due) :: M(15) -> ok = 1 :: else fi;
    c = 0;
    if
    :: ok -> h = 0; goto proof
    :: !ok && h > held -> held = h; h = 0; goto sweep
    :: else
    fi;

    /* `full_pass` */
    k = 0; complete = 1; exempt = 0;
    do
    :: k == NT -> break
    :: k < NT && (k == i || !LISTED(k)) -> k++
    :: atomic { k < NT && k != i && LISTED(k) && misses > 0 -> misses-- }; k++
    :: k < NT && k != i && LISTED(k) ->
        /* c: what the look found. 1 held, 2 exempt, 3 gone, 4 living without a signal, 5 living with one */
        CALL(i, LOOK(k));
        if
        :: c == 2 ->
            atomic { etid[e] = tid[k]; emark[e] = EXEMPT; enr[e] = ep; evalue[e] = k; keep = 1; exempt++ }
        :: c == 4 -> atomic { if :: emark[e] == SENT -> emark[e] = IDLE :: else fi }
        :: else
        fi;
        if
        :: c >= 4 -> atomic { if :: emark[e] == EXEMPT -> emark[e] = IDLE; enr[e] = 0 :: else fi; complete = 0 }
        :: c == 3 -> complete = 0
        :: else
        fi;
        e = 0; c = 0;
        k++
    od;
    h = count;
    CALL(i, c = TASKS);
    k = 0; same = 0;
    do
    :: k == NT -> break
    :: k < NT -> LOOK_AGAIN(k); k++
    od;
    ok = (complete && c == h + exempt + 1 && (same == exempt || M(16)));
    h = 0; c = 0; k = 0; complete = 0; exempt = 0; same = 0;
    if
    :: ok -> REACHED(6); goto proof
    :: !ok && turns < PASSES -> turns++; goto sweep
    :: !ok -> goto give_up
    fi;

proof:
    /* `close_gate` */
    ok = 0;
    h = count;
    c = 0;
    atomic {
        if
        :: IS_STATE(ep, GATHERING, h) && NEXT('c', 0) -> phase = FULL; c = 1; SEEN
        :: !IS_STATE(ep, GATHERING, h)
        fi
    };
    if :: c == 0 -> if :: turns < PASSES -> turns++; goto sweep :: else -> goto give_up fi :: else fi;
    c = 0;
    /* `all_live`: all sleep on the gate; or, if one does not after some time or the kernel does not tell, none is dead. */
    if
    :: DIE(i)
    :: ASLEEP_ON(GATE) == h
    :: atomic {
            k = 0; c = 1;
            do
            :: k == size -> break
            :: k < size -> if :: emark[k] == HELD && enr[k] == ep && GONE(etid[k]) -> c = 0 :: else fi; k++
            od;
            k = 0
        };
        if :: c == 0 && !M(17) -> h = 0; goto give_up :: else fi
    fi;
    c = 0;

    /* `commit`: the caller's own call */
    if
    :: DIE(i)
    :: FAILS -> ok = 0
    :: atomic { done[i]++; ok = 1; CHECK }
    fi;
    if
    :: !ok -> goto release
    :: else
    fi;
    plan = done[i];
    /* `publish` */
    atomic {
        if
        :: IS_STATE(ep, FULL, h) && NEXT('p', 0) -> phase = COMMITTING; SEEN
        :: !IS_STATE(ep, FULL, h) -> assert(false)
        fi
    };
    h = 0;
    if :: M(18) :: else -> gate = (gate + 1) & 3 fi;
    CALL(i, WAKE_ALL(GATE));
    AWAIT_REPORTS(i);
    /* `judge` */
    if :: DIVERGENT -> if :: DIE(i) :: killed = 1; goto finish fi :: else fi;

release:
    /* `release` */
    CLOSE(i, h, 'x');
    if
    :: h == COMMITTING ->
        if :: M(19) :: else -> exit_ = (exit_ + 1) & 3 fi;
        c = 0;
        atomic { if :: last -> last = 0; c = 1 :: else fi };
        if :: c == 0 -> CALL(i, WAKE_ONE(EXIT)) :: else fi;
        c = 0
    :: else ->
        gate = (gate + 1) & 3;
        CALL(i, WAKE_ONE(GATE); if :: M(20) :: !M(20) -> MOVE(GATE, EXIT) fi)
    fi;
    h = 0;
    END_PAUSE(i);
    UNLOCK(i);
    CALL(i, skip);            /* rt_sigprocmask(2) */
    atomic {
        /* P1: no caller gets Ok with a thread missed. P2: nothing on failure. */
        if
        :: ok && !killed ->
            REACHED(1);
            assert(life[0] != ALIVE || done[0] >= before + 1);
            assert(life[1] != ALIVE || done[1] >= before + 1);
            assert(life[2] != ALIVE || done[2] >= before + 1);
            assert(life[3] != ALIVE || done[3] >= before + 1)
        :: else
        fi;
        user[i] = 1;
        CHECK;
        ok = 0; before = 0; rounds = 0
    };
    goto in_user;

give_up:
    /* `give_up_round`: `begin_pause` in most pauses, `give_up` */
    held = 0; due = 0; turns = 0; ok = 0; no_place = 0;
    REACHED(2);
    if :: pause_ = ep :: true fi;
    CLOSE(i, h, 'g');
    gate = (gate + 1) & 3;
    CALL(i, WAKE_ONE(GATE); if :: M(20) :: !M(20) -> MOVE(GATE, EXIT) fi);
    CALL(i, WAKE_ALL(EXIT));
    h = 0;
    keep = 1;
    if
    :: rounds < ROUNDS ->
        UNLOCK(i);
        /* `pause`: signals are open. */
        atomic { user[i] = 1; CHECK };
        if
        :: DIE(i)
        :: atomic { sig[i]?mine -> user[i] = 0; nested = 1; goto handler }
        :: user[i] = 0
        fi;
        goto take_turn
    :: else ->
        END_PAUSE(i);
        UNLOCK(i);
        CALL(i, skip);
        assert(CALLERS > 1 || (done[0] == 0 && done[1] == 0 && done[2] == 0 && done[3] == 0));
        atomic { user[i] = 1; CHECK; before = 0; rounds = 0 };
        goto in_user
    fi;

dead:
    /* The kernel discards pending signals and takes the thread from the futex queue. */
    atomic {
        life[i] = EXITING;
        user[i] = 0;
        asleep[i] = AWAKE;
        do :: nempty(sig[i]) -> sig[i]?_ :: empty(sig[i]) -> break od;
        k = 0; e = 0; h = 0; c = 0; b = 0; due = 0; held = 0; exempt = 0; same = 0; turns = 0; rounds = 0; before = 0;
        mine = 0; my_ep = 0; my_count = 0; parked = 0; stays = 0; watch = 0; reported = 0; nested = 0; calls = 0; slept = 0;
        complete = 0; no_place = 0; ok = 0
    };
    /* A zombie leader stays. */
    if :: LEADER && i == 1 && execer == NT -> goto zombie :: else -> life[i] = OVER fi;
    goto finish;
zombie:
end_zombie:
    execer < NT; life[i] = OVER;
finish:
    skip
}

/* Another library's broadcast: sends its signal to two threads, and waits until both have handled it. */
active proctype other_library()
{
    byte sent;
end_none:
    FOREIGN && what_is_set;
    atomic { len(sig[0]) < 2 && life[0] == ALIVE -> sig[0]!NOBODY; sent++ };
    atomic { len(sig[1]) < 2 && life[1] == ALIVE -> sig[1]!NOBODY; sent++ };
    foreign == sent || killed
}

/* A recorded run is a path of the model if its end is reached. */
active proctype end_of_record()
{
end_never:
    atomic { events > 0 && at == events -> assert(at != events) }
}

init {
    c_code {
        FILE *file;
        char *value, w;
        int x;
        value = getenv("THREADS"); if (value) THREADS = atoi(value);
        value = getenv("CALLERS"); if (value) CALLERS = atoi(value);
        value = getenv("BIRTHS"); if (value) BIRTHS = atoi(value);
        value = getenv("EXITS"); if (value) EXITS = atoi(value);
        value = getenv("DEATHS"); if (value) DEATHS = atoi(value);
        value = getenv("MORTAL"); if (value) MORTAL = atoi(value);
        value = getenv("FULLQ"); if (value) FULLQ = atoi(value);
        value = getenv("MISSES"); if (value) MISSES = atoi(value);
        value = getenv("ROUNDS"); if (value) ROUNDS = atoi(value);
        value = getenv("PASSES"); if (value) PASSES = atoi(value);
        value = getenv("WATCHES"); if (value) WATCHES = atoi(value);
        value = getenv("HAND_OVER"); if (value) HAND_OVER = atoi(value);
        value = getenv("TIMERS"); if (value) TIMERS = atoi(value);
        value = getenv("REUSE"); if (value) REUSE = atoi(value);
        value = getenv("EXEC"); if (value) EXEC = atoi(value);
        value = getenv("FOREIGN"); if (value) FOREIGN = atoi(value);
        value = getenv("DIFFER"); if (value) DIFFER = atoi(value);
        value = getenv("FAILS"); if (value) FAILS = atoi(value);
        value = getenv("LEADER"); if (value) LEADER = atoi(value);
        value = getenv("MUTATION"); if (value) MUTATION = atoi(value);
        value = getenv("REACH"); if (value) REACH = atoi(value);
        value = getenv("RECORD");
        file = value ? fopen(value, "r") : 0;
        while (file && events < 2000 && fscanf(file, " %c%d", &w, &x) == 2) { what[events] = w; actor[events++] = x; }
    };
    atomic {
        births = BIRTHS; exits = EXITS; deaths = DEATHS; fullq = FULLQ; misses = MISSES; differ = DIFFER; may_exec = EXEC;
        what_is_set = 1;
        byte n = 0;
        do
        :: n < THREADS -> life[n] = ALIVE; user[n] = 1; tid[n] = TIDOF(n); n++
        :: else -> break
        od;
        n = 0;
        do
        :: n < THREADS -> run thread(n); n++
        :: else -> break
        od;
        n = 0;
        if :: BIRTHS > 0 -> run thread(NT - 1) :: else fi
    }
}

/* Every call ends: the caller is back in its program, or is dead, or the process is. And every thread leaves. */
#define BACK(k) (life[k] != ALIVE || user[k] || k == execer)
#ifdef LIVENESS
ltl ends { []<> (killed || (BACK(0) && BACK(1) && BACK(2) && BACK(3))) }
#endif
