// Steps through a stop. Plain script, no network, no dependency.
(() => {
  "use strict";

  // What a cell shows: [mark, words].
  const KINDS = {
    old: ["▶", "runs, old state"],
    sig: ["⚡", "runs, signal pending"],
    held: ["▮▮", "held"],
    call: ["★", "performs the call"],
    done: ["✓", "held, has performed the call"],
    wait: ["…", "waits"],
    fresh: ["▶", "runs, new state"],
    fork: ["+1", "forks, old state"],
    child: ["▶", "the child, old state"],
    gone: ["", "does not exist"],
  };

  // A step: a sentence, the state of each thread, held and linked threads, and what the gate is.
  const step = (text, cells, held, linked, gate) => ({ text, cells, held, linked, gate });
  const SCENARIOS = {
    "nothing special": {
      lanes: ["caller", "A", "B"],
      steps: [
        step("Three threads run. The caller takes the lock, blocks its signals, and opens /proc/self/task.", ["old", "old", "old"], 0, 3, "closed"),
        step("The caller opens the gate for arrivals and queues signal 33 to A and B.", ["wait", "sig", "sig"], 0, 3, "open"),
        step("A takes the signal. In the handler it counts itself as held, and sleeps on the gate.", ["wait", "held", "sig"], 1, 3, "open"),
        step("B arrives too. Two held threads and the caller are three: the link count says three. This is the proof.", ["wait", "held", "held"], 2, 3, "closed"),
        step("The caller makes the call, and the kernel accepts it.", ["call", "held", "held"], 2, 3, "closed"),
        step("The caller publishes the call. A and B wake, make the call, and record their results.", ["done", "call", "call"], 2, 3, "published"),
        step("All have reported. The caller judges: the results agree. Until now, no thread has run an instruction of the program.", ["done", "done", "done"], 2, 3, "published"),
        step("The caller changes one word and returns. A leaves and wakes B.", ["fresh", "fresh", "done"], 1, 3, "released"),
        step("All threads run with the new state.", ["fresh", "fresh", "fresh"], 0, 3, "closed"),
      ],
    },
    "a thread is created": {
      lanes: ["caller", "A", "B", "new"],
      steps: [
        step("Two other threads run. The caller begins.", ["old", "old", "old", "gone"], 0, 3, "closed"),
        step("The caller queues its signal to A and B. It has seen no other thread.", ["wait", "sig", "sig", "gone"], 0, 3, "open"),
        step("A is held. B has not taken its signal yet, and creates a thread with clone(2).", ["wait", "held", "old", "old"], 1, 4, "open"),
        step("B is held. Two held threads and the caller are three, but the link count is four. There is no proof.", ["wait", "held", "held", "old"], 2, 4, "open"),
        step("The caller looks for the missing thread, and signals it.", ["wait", "held", "held", "sig"], 2, 4, "open"),
        step("The new thread is held: three and the caller are four. No thread can create another one now. This is the proof.", ["wait", "held", "held", "held"], 3, 4, "closed"),
        step("The caller makes the call.", ["call", "held", "held", "held"], 3, 4, "closed"),
        step("All threads make it, the new one too.", ["done", "call", "call", "call"], 3, 4, "published"),
        step("The caller judges, and all threads leave.", ["fresh", "fresh", "fresh", "fresh"], 0, 4, "released"),
      ],
    },
    "a thread exits": {
      lanes: ["caller", "A", "B"],
      steps: [
        step("B is about to end when the caller begins.", ["old", "old", "old"], 0, 3, "closed"),
        step("The caller queues its signal to A and B.", ["wait", "sig", "sig"], 0, 3, "open"),
        step("A is held. B is in exit(2) and takes no signal any more. One held thread and the caller are two, but the link count is three.", ["wait", "held", "sig"], 1, 3, "open"),
        step("The kernel removes B. The link count falls to two. This is the proof: whatever B was, it runs no more code.", ["wait", "held", "gone"], 1, 2, "closed"),
        step("The caller makes the call.", ["call", "held", "gone"], 1, 2, "closed"),
        step("A makes it.", ["done", "call", "gone"], 1, 2, "published"),
        step("The caller judges, and A leaves.", ["fresh", "fresh", "gone"], 0, 2, "released"),
      ],
    },
    "a thread forks": {
      lanes: ["caller", "A", "B", "child"],
      steps: [
        step("B is about to fork when the caller begins.", ["old", "old", "old", "gone"], 0, 3, "closed"),
        step("The caller queues its signal to A and B.", ["wait", "sig", "sig", "gone"], 0, 3, "open"),
        step("A is held. B forks: the child is another process. It has the old state, and no thread has the new one yet. This is the same as a fork before the call.", ["wait", "held", "fork", "child"], 1, 3, "open"),
        step("B is held. The child is not in /proc/self/task, so the count is right: this is the proof. A held thread cannot fork.", ["wait", "held", "held", "child"], 2, 3, "closed"),
        step("The caller makes the call. If B could still run now, it could fork a child that keeps the old state after the change.", ["call", "held", "held", "child"], 2, 3, "closed"),
        step("A and B make the call.", ["done", "call", "call", "child"], 2, 3, "published"),
        step("All threads leave with the new state. A child that is forked from now on has it too.", ["fresh", "fresh", "fresh", "child"], 0, 3, "released"),
      ],
    },
    "a signal arrives late": {
      lanes: ["caller", "A", "B"],
      steps: [
        step("B is new: glibc has blocked its signals, and it waits for its creator A.", ["old", "old", "wait"], 0, 3, "closed"),
        step("The caller queues its signal to A and B.", ["wait", "sig", "sig"], 0, 3, "open"),
        step("A is held. B waits for A with its signals blocked: it cannot arrive as long as A is held.", ["wait", "held", "sig"], 1, 3, "open"),
        step("For 4 ms nothing happens. The caller gives the round up, and releases A. Nothing has changed.", ["wait", "old", "sig"], 0, 3, "closed"),
        step("A runs on and completes the creation of B. B opens its signals, and takes the signal of the first round. It waits for the next round.", ["wait", "old", "wait"], 0, 3, "closed"),
        step("The next round begins. B counts itself as held with the signal that it has; A is signalled again.", ["wait", "sig", "held"], 1, 3, "open"),
        step("Both are held: the proof.", ["wait", "held", "held"], 2, 3, "closed"),
        step("The caller makes the call.", ["call", "held", "held"], 2, 3, "closed"),
        step("A and B make it.", ["done", "call", "call"], 2, 3, "published"),
        step("All threads leave.", ["fresh", "fresh", "fresh"], 0, 3, "released"),
      ],
    },
    "the call is refused": {
      lanes: ["caller", "A", "B"],
      steps: [
        step("The program asks for a call for which it has no privilege.", ["old", "old", "old"], 0, 3, "closed"),
        step("The caller queues its signal to A and B.", ["wait", "sig", "sig"], 0, 3, "open"),
        step("Both are held: the proof.", ["wait", "held", "held"], 2, 3, "closed"),
        step("The caller makes the call. The kernel answers EPERM. The caller's state is as before.", ["call", "held", "held"], 2, 3, "closed"),
        step("Nothing is published. A and B have not made the call.", ["wait", "held", "held"], 2, 3, "closed"),
        step("The caller releases all threads. They run on in the old state. The program gets Error::Call(EPERM): nothing has changed in any thread.", ["old", "old", "old"], 0, 3, "released"),
      ],
    },
  };

  const root = document.getElementById("stop-player");
  if (!root) return;
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  let name = Object.keys(SCENARIOS)[0];
  let at = 0;
  let timer = 0;

  const select = make("select", { id: "stop-scenario" });
  for (const scenario of Object.keys(SCENARIOS)) select.append(make("option", {}, scenario));
  const back = make("button", { type: "button" }, "Back");
  const next = make("button", { type: "button" }, "Next");
  const play = make("button", { type: "button" }, "Play");
  const text = make("p", { class: "stop-text", "aria-live": "polite" });
  const numbers = make("p", { class: "stop-numbers" });
  const board = make("table", { class: "stop-board" });
  root.replaceChildren(
    make("p", { class: "stop-controls" }, make("label", { for: "stop-scenario" }, "Beside the call: "), select),
    make("p", { class: "stop-controls" }, back, next, play),
    text, numbers, make("div", { class: "stop-scroll" }, board), legend(),
  );

  function legend() {
    const list = make("ul", { class: "stop-legend" });
    for (const [kind, [mark, words]] of Object.entries(KINDS)) {
      if (kind === "gone") continue;
      list.append(make("li", {}, make("span", { class: `stop-cell stop-${kind}`, "aria-hidden": "true" }, mark), ` ${words}`));
    }
    return list;
  }

  function draw() {
    const { lanes, steps } = SCENARIOS[name];
    const now = steps[at];
    text.textContent = `${at + 1} of ${steps.length}: ${now.text}`;
    numbers.textContent = `gate: ${now.gate} · held: ${now.held}, and the caller: ${now.held + 1} · linked: ${now.linked}`;
    board.replaceChildren(...lanes.map((lane, row) => {
      const line = make("tr", {}, make("th", { scope: "row" }, lane));
      steps.forEach((one, column) => {
        const kind = column <= at ? one.cells[row] : "gone";
        const [mark, words] = KINDS[kind];
        const cell = make("td", { title: words }, make("span", { class: `stop-cell stop-${kind}` }, mark));
        if (column === at) cell.className = "stop-now";
        line.append(cell);
      });
      return line;
    }));
    back.disabled = at === 0;
    next.disabled = at === steps.length - 1;
    board.querySelector(".stop-now")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function go(to) {
    at = Math.max(0, Math.min(to, SCENARIOS[name].steps.length - 1));
    draw();
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  back.addEventListener("click", () => { pause(); go(at - 1); });
  next.addEventListener("click", () => { pause(); go(at + 1); });
  play.addEventListener("click", () => {
    if (timer) return pause();
    if (next.disabled) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      go(at + 1);
      if (next.disabled) pause();
    }, 2500);
  });
  select.addEventListener("change", () => { pause(); name = select.value; go(0); });
  // The arrow keys belong to the book's own navigation, so they are taken before it sees them.
  document.addEventListener("keydown", (event) => {
    if (event.target === select || event.ctrlKey || event.altKey || event.metaKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    pause();
    go(at + by);
  }, true);
  const wanted = Number(new URLSearchParams(location.search).get("step"));
  const scenario = Object.keys(SCENARIOS)[Number(new URLSearchParams(location.search).get("case")) || 0];
  if (scenario) { name = scenario; select.value = scenario; }
  go(wanted || 0);
})();
