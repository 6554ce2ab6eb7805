// Words and waveforms play: what stands in an answer is found by its attributes, so that answers that come later work too.
(() => {
  const box = (node) => node.closest(".mj-answer");
  const play = (node, seconds, until = Infinity) => {
    const audio = box(node)?.querySelector("audio");
    if (!audio) return;
    audio.until = until;
    audio.currentTime = seconds;
    const stop = () => {
      if (audio.until !== until) return; // something else plays now
      if (audio.currentTime < until) return requestAnimationFrame(stop);
      audio.pause();
      audio.currentTime = until - 0.01; // at the end of its word, not at the beginning of the next
    };
    if (until < Infinity) requestAnimationFrame(stop);
    audio.play().catch(() => {}); // a browser that does not let it plays from there when it is told to
  };
  document.addEventListener("click", (event) => {
    const word = event.target.closest?.(".mj-word");
    if (word?.dataset.told) {
      box(word).querySelector(".mj-parts").textContent = word.dataset.told;
      return play(word, Number(word.dataset.at), Number(word.dataset.to)); // it alone: how it was said is looked at
    }
    if (word) return play(word, Number(word.dataset.at));
    const wave = event.target.closest?.(".mj-wave");
    if (!wave) return;
    const place = wave.getBoundingClientRect();
    play(wave, (Number(wave.dataset.seconds) * (event.clientX - place.left)) / place.width);
  });
  document.addEventListener("keydown", (event) => {
    const word = event.target.closest?.(".mj-word");
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!word || !step) return;
    const words = [...box(word).querySelectorAll(".mj-word")];
    const next = words[words.indexOf(word) + step];
    if (!next) return;
    word.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    event.preventDefault();
  });
  // These do not bubble, but are seen on their way down.
  const follow = (event) => {
    const answer = event.target.closest?.(".mj-answer");
    if (!answer) return;
    const now = event.target.currentTime;
    const wave = answer.querySelector(".mj-wave");
    const at = (1000 * now) / Number(wave.dataset.seconds);
    for (const head of answer.querySelectorAll(".mj-head")) {
      head.setAttribute("x1", at);
      head.setAttribute("x2", at);
    }
    for (const word of answer.querySelectorAll(".mj-word"))
      word.classList.toggle("mj-now", Number(word.dataset.at) <= now && now < Number(word.dataset.to));
  };
  document.addEventListener("timeupdate", follow, true);
  document.addEventListener("seeking", follow, true);
  document.addEventListener("pause", (event) => (event.target.until = Infinity), true);
  // One plays at a time.
  document.addEventListener("play", (event) => {
    for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);
})();
