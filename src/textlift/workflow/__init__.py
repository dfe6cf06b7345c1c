"""The main job and the verbs around it: where the rooms are joined."""
