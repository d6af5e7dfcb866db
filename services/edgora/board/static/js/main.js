// The page's entry: reads which nodes there are; the shell and the views are mounted from here.

const answer = await fetch("board.json", { cache: "no-store" });
const config = await answer.json();
document.querySelector("#view h1").textContent = `Edgora board: ${config.nodes.length} nodes`;
