"""Where the agent learns of objects: each source yields `meshd.agent.state.Changes`."""
